// A backend that asks wxlogind itself who is calling. Java 17 or newer, nothing else: java Backend.java
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.Pattern;

public class Backend {
	static final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

	/** null: no session. A JSON library reads the answer better than this. */
	static String openid(String authorization) throws Exception {
		String token = authorization == null ? "" : authorization.replaceFirst("(?i)^Bearer +", "");
		var ask = HttpRequest.newBuilder(URI.create(System.getenv("WXLOGIND") + "/internal/introspect")).timeout(Duration.ofSeconds(2))
			.header("Content-Type", "application/x-www-form-urlencoded").header("X-Internal-Token", System.getenv("WX_INTERNAL_TOKEN"))
			.POST(HttpRequest.BodyPublishers.ofString("token=" + URLEncoder.encode(token, StandardCharsets.UTF_8))).build();
		var answer = client.send(ask, BodyHandlers.ofString());
		if (answer.statusCode() != 200) throw new IllegalStateException("wxlogind: " + answer.statusCode());
		var sub = Pattern.compile("\"sub\":\"([^\"]*)\"").matcher(answer.body());
		return answer.body().contains("\"active\":true") && sub.find() ? sub.group(1) : null;
	}

	public static void main(String[] args) throws Exception {
		var port = Integer.parseInt(System.getenv().getOrDefault("PORT", "3000"));
		var server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
		server.createContext("/", exchange -> {
			String who = null;
			int status = 503;
			try {
				who = openid(exchange.getRequestHeaders().getFirst("Authorization"));
				status = who == null ? 401 : 200;
			} catch (Exception e) {
				System.err.println(e);
			}
			byte[] body = who == null ? new byte[0] : who.getBytes(StandardCharsets.UTF_8);
			exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
			if (body.length > 0) exchange.getResponseBody().write(body);
			exchange.close();
		});
		server.start();
	}
}
