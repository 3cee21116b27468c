<?php
// A page that asks wxlogind itself who is calling. PHP 8, nothing else.
function openid(): ?string
{
	$token = preg_replace("/^Bearer +/i", "", $_SERVER["HTTP_AUTHORIZATION"] ?? "");
	$answer = @file_get_contents(getenv("WXLOGIND") . "/internal/introspect", false, stream_context_create(["http" => [
		"method" => "POST",
		"header" => ["Content-Type: application/x-www-form-urlencoded", "X-Internal-Token: " . getenv("WX_INTERNAL_TOKEN")],
		"content" => http_build_query(["token" => $token]),
		"timeout" => 2,
	]]));
	$session = $answer === false ? throw new RuntimeException("wxlogind does not answer") : json_decode($answer, true);
	return $session["active"] ? $session["sub"] : null;
}

try {
	$who = openid();
	http_response_code($who === null ? 401 : 200);
	echo $who;
} catch (RuntimeException) {
	http_response_code(503);
}
