<?php
/* backend.py once more, in PHP behind FastCGI: the caller is in $_SERVER. It believes the headers, so
 * nobody but the proxy may reach it. */
$openid = $_SERVER["HTTP_X_WX_OPENID"] ?? "";
$headers = [];
foreach ($_SERVER as $name => $value) {
	if (str_starts_with($name, "HTTP_") || str_starts_with($name, "CONTENT_")) {
		$headers[] = [$name, $value];
	}
}
$body = file_get_contents("php://input");
header("Content-Type: application/json");
if ($openid === "" || empty($_SERVER["HTTP_X_WX_SOURCE"])) {
	http_response_code(403);
	echo json_encode(["error" => "no_caller", "message" => "There is no X-Wx-Openid: is the proxy in front?"]);
} elseif ($_SERVER["REQUEST_URI"] === "/api/wx_openid") { // as in WeChat's templates
	header("Content-Type: text/plain; charset=utf-8");
	echo $openid;
} else {
	echo json_encode([
		"openid" => $openid,
		"appid" => $_SERVER["HTTP_X_WX_APPID"] ?? null,
		"unionid" => ($_SERVER["HTTP_X_WX_UNIONID"] ?? "") ?: null, // none, or empty: not known
		"method" => $_SERVER["REQUEST_METHOD"],
		"path" => $_SERVER["REQUEST_URI"],
		"headers" => $headers,
		"body" => ["length" => strlen($body), "sha256" => hash("sha256", $body)],
	], JSON_INVALID_UTF8_SUBSTITUTE);
}
