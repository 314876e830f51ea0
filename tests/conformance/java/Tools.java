import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools one after the other, because starting is most of what one of them does.
 *
 * <p>A line of standard input is a run: the class, what it reads, its arguments, each in Base64. A line of standard
 * output is how it ended: the exit code and what it printed, in Base64. Tools end through {@link Exit}.
 */
public final class Tools {
    /** Takes a tool back to where it was started from. No exception, as tools catch those. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1L;
    }

    /** Loads the classes of tools anew, whose static fields would remember the run before. */
    private static final class Fresh extends URLClassLoader {
        private static final URL[] CLASS_PATH = Arrays.stream(System.getProperty("java.class.path").split(":"))
                .map(Fresh::url).toArray(URL[]::new);

        Fresh() {
            super(CLASS_PATH, Tools.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.startsWith("org.apache.kafka.tools.")) {
                return super.loadClass(name, resolve);
            }
            Class<?> found = findLoadedClass(name);
            return found == null ? findClass(name) : found;
        }

        private static URL url(String path) {
            try {
                return Path.of(path).toUri().toURL();
            } catch (MalformedURLException problem) {
                throw new IllegalArgumentException(problem);
            }
        }
    }

    private static final List<Integer> CODES = new ArrayList<>();
    private static final PrintStream ERRORS = System.err;
    private static final List<Runnable> HOOKS = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        BufferedReader runs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream answers = System.out;
        Exit.setExitProcedure(Tools::end);
        Exit.setHaltProcedure(Tools::end);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        for (String line = runs.readLine(); line != null; line = runs.readLine()) {
            List<String> words = Arrays.stream(line.split(" ", -1)).map(Tools::decoded).toList();
            ByteArrayOutputStream printed = new ByteArrayOutputStream();
            int code = run(words.get(0), words.get(1), words.subList(2, words.size()), printed);
            answers.println(code + " " + Base64.getEncoder().encodeToString(printed.toByteArray()));
            answers.flush();
        }
    }

    private static int run(String tool, String input, List<String> arguments, ByteArrayOutputStream printed)
            throws ReflectiveOperationException {
        CODES.clear();
        HOOKS.clear();
        PrintStream to = new PrintStream(printed, true, StandardCharsets.UTF_8);
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        System.setOut(to);
        System.setErr(to);
        try {
            Class.forName(tool, true, new Fresh()).getMethod("main", String[].class)
                    .invoke(null, (Object) arguments.toArray(String[]::new));
        } catch (InvocationTargetException problem) {
            if (CODES.isEmpty()) {
                problem.getCause().printStackTrace(to);
                CODES.add(1);
            }
        }
        HOOKS.forEach(Runnable::run); // What Java does when it ends.
        System.setOut(ERRORS); // For what threads print that are still there.
        System.setErr(ERRORS);
        return CODES.isEmpty() ? 0 : CODES.get(0);
    }

    private static void end(int code, String message) {
        CODES.add(code);
        throw new Ended();
    }

    private static String decoded(String text) {
        return new String(Base64.getDecoder().decode(text), StandardCharsets.UTF_8);
    }
}
