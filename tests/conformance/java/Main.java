import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs every check of the Java clients against one broker; one JSON object per line and check.
 *
 * <p>{@code Main BOOTSTRAP [PATTERN]}, or {@code Main BOOTSTRAP --restart} for the one check that needs a broker to
 * go down and come back: it produces, waits for a line on its standard input, and goes on with the same clients.
 */
public final class Main {
    /** One thing that must hold; it throws if it does not. */
    interface Check {
        void run() throws Exception;
    }

    private static final int CHECK_TIMEOUT_S = 60;
    /** Most of them wait most of the time. */
    private static final int CHECKS_AT_ONCE = 4;

    public static void main(String[] arguments) throws Exception {
        Kit kit = new Kit(arguments[0]);
        Map<String, Check> checks = new LinkedHashMap<>();
        RecordChecks.register(kit, checks);
        GroupChecks.register(kit, checks);
        ConsumerGroupChecks.register(kit, checks);
        AdminChecks.register(kit, checks);
        LimitChecks.register(kit, checks);
        ShareChecks.register(kit, checks);
        TransactionChecks.register(kit, checks);
        if (arguments.length > 1 && arguments[1].equals("--restart")) {
            checks.clear();
            checks.put("going on after a restart of the broker", () -> Restart.run(kit));
        }
        if (arguments.length > 1 && arguments[1].equals("--share-restart")) {
            checks.clear();
            checks.put("a share consumer goes on after a restart of the broker", () -> ShareChecks.restart(kit));
        }
        ExecutorService runner = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task, "check");
            thread.setDaemon(true);
            return thread;
        });
        ExecutorService reporters = Executors.newFixedThreadPool(CHECKS_AT_ONCE);
        List<Future<?>> reports = new ArrayList<>();
        checks.forEach((name, check) -> {
            if (arguments.length > 1 && !arguments[1].startsWith("--") && !name.matches(arguments[1])) {
                return;
            }
            reports.add(reporters.submit(() -> report(name, runner, check)));
        });
        reporters.shutdown();
        for (Future<?> report : reports) {
            report.get();
        }
        System.out.flush();
        System.exit(0);
    }

    private static void report(String name, ExecutorService runner, Check check) {
        long began = System.nanoTime();
        String error = failureOf(runner, check);
        System.out.println(String.format("{\"name\": \"%s\", \"error\": %s, \"seconds\": %.2f}",
                name, error == null ? "null" : quoted(error), (System.nanoTime() - began) / 1e9));
    }

    private static String failureOf(ExecutorService runner, Check check) {
        var running = runner.submit(() -> {
            check.run();
            return null;
        });
        try {
            running.get(CHECK_TIMEOUT_S, TimeUnit.SECONDS);
            return null;
        } catch (TimeoutException problem) {
            running.cancel(true);
            return "not done within " + CHECK_TIMEOUT_S + " s";
        } catch (ExecutionException | InterruptedException problem) {
            StringWriter text = new StringWriter();
            (problem.getCause() == null ? problem : problem.getCause()).printStackTrace(new PrintWriter(text));
            return text.toString();
        }
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char character : text.toCharArray()) {
            switch (character) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                default -> out.append(character < ' ' ? " " : character);
            }
        }
        return out.append('"').toString();
    }
}
