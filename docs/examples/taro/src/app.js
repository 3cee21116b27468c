import common from "wxlogind-miniprogram";

// Where wxlogind answers. For a release: the https name that you entered in the WeChat console.
common.configure({ baseUrl: "http://127.0.0.1:8080" });

export default function App({ children }) {
  return children;
}
