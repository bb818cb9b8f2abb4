// Child of audit-trail.test.ts: appends to an embedded trail until it is killed; prints the number of each entry that
// was reported as written.
import { writeSync } from "node:fs";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { realClock } from "./manual-clock.js";

const [folder = ""] = process.argv.slice(2);
const database = await AuditDatabase.embedded({ folder });
await database.migrate();
const trail = new DatabaseAuditTrail({}, { database, clock: realClock });
let number = Number((await trail.head()).sequence);
for (;;) {
  number++;
  await trail.append([{ kind: "ballot", walletId: "treasury", subject: "killed", payload: { number } }]);
  writeSync(1, `${number}\n`);
}
