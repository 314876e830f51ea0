import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.data.IcebergGenerics;
import org.apache.iceberg.jdbc.JdbcCatalog;

/**
 * What is in an Iceberg table: {@code TableRows DATABASE WAREHOUSE TABLE} prints its rows, its distinct ids, and how many
 * rows are different in what changes do to them.
 */
public final class TableRows {
    public static void main(String[] arguments) throws Exception {
        try (JdbcCatalog catalog = new JdbcCatalog()) {
            catalog.setConf(new Configuration());
            catalog.initialize("iceberg", Map.of("uri", "jdbc:sqlite:" + arguments[0], "warehouse", arguments[1]));
            var table = catalog.loadTable(TableIdentifier.parse(arguments[2]));
            int rows = 0;
            Set<Object> ids = new HashSet<>();
            Set<Object> changes = new HashSet<>();
            try (var records = IcebergGenerics.read(table).select("id", "amount", "__deleted").build()) {
                for (var row : records) {
                    rows++;
                    ids.add(row.getField("id"));
                    changes.add(Arrays.asList(
                            row.getField("id"), row.getField("amount"), row.getField("__deleted")));
                }
            }
            System.out.println("rows " + rows + " ids " + ids.size() + " changes " + changes.size());
        }
    }
}
