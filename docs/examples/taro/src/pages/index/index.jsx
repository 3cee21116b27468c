import { useEffect, useState } from "react";
import { Button, Text, View } from "@tarojs/components";
import { logout, request, userLogin } from "wxlogind-miniprogram";

export default function Index() {
  const [text, setText] = useState("…");

  function login() {
    userLogin()
      .then(() => request({ url: "/v1/session" }))
      .then(({ data }) => setText(`已登录 ${data.appid}`))
      .catch((error) => setText(`未登录：${error.code}`));
  }

  useEffect(login, []);

  return (
    <View>
      <Text>{text}</Text>
      <Button onClick={login}>登录</Button>
      <Button onClick={() => logout().then(() => setText("未登录"))}>退出</Button>
    </View>
  );
}
