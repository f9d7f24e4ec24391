import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/**
 * The JDK's own client, on which Spring AI, LangChain4j and Ktor stand. It offers HTTP/2 (Upgrade: h2c) with each
 * request to an http URL until a server takes it.
 *
 * <p>java JavaClient.java URL KEY BODY STREAMED_BODY: prints a line for each answer, then `done`, and waits for a line.
 */
public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int round = 0; round < 3; round++) {
            for (int at = 2; at < 4; at++) {
                HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/chat/completions"))
                        .header("Authorization", "Bearer " + arguments[1])
                        .header("Content-Type", "application/json")
                        .POST(HttpRequest.BodyPublishers.ofString(arguments[at]))
                        .build();
                print(client.send(request, HttpResponse.BodyHandlers.ofString()));
            }
            HttpRequest models = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/models/"))
                    .header("Authorization", "Bearer " + arguments[1])
                    .build();
            print(client.send(models, HttpResponse.BodyHandlers.ofString()));
        }
        System.out.println("done");
        System.in.read();
    }

    private static void print(HttpResponse<String> answer) {
        String last = answer.body().strip();
        System.out.println(answer.statusCode() + " " + answer.version() + " " + last.substring(last.length() - 6));
    }
}
