import { join } from "node:path";
import type { Command } from "commander";
import type { Ban, BanStore } from "../consensus/vote-ledger.js";
import { coordinatorConfigurationSchema } from "../coordinator/configuration.js";
import { InvalidInput } from "../crypto/fault.js";
import { nodeConfigurationSchema } from "../node/configuration.js";
import { loadConfiguration } from "./configuration-file.js";
import { aligned, listed, type Terminal } from "./terminal.js";

/**
 * Bans are for people to lift: whoever was caught once has a key that somebody else may hold. Each node bans for itself,
 * and the coordinators together; a member reads its bans when it starts.
 */

interface ListOptions {
  readonly config: string;
  readonly json?: boolean;
}

interface LiftOptions {
  readonly config: string;
  readonly yes?: boolean;
}

/** Where bans are kept, opened while the process that uses it is stopped. */
interface BanBook {
  readonly bans: BanStore;
  readonly lifted: (ban: Ban) => Promise<void>;
  close(): Promise<void>;
}

/** Adds `node bans`, `node lift-ban`, `coordinator bans`, `coordinator lift-ban` to the commands of processes. */
export function addBanCommands(program: Command, terminal: Terminal): void {
  const roles = [
    { role: "node", open: nodeBook, whose: "a stopped node" },
    {
      role: "coordinator",
      open: (config: string) => coordinatorBook(config, terminal),
      whose: "the stopped coordinators",
    },
  ];
  for (const { role, open, whose } of roles) {
    const parent = program.commands.find((command) => command.name() === role);
    if (parent === undefined) continue;
    parent
      .command("bans")
      .description(`whom ${whose} banned, and for what`)
      .requiredOption("--config <file>", `configuration of the ${role} (TOML)`)
      .option("--json", "print one JSON array")
      .action(async ({ config, json }: ListOptions) => {
        const bans = await withBook(await open(config), ({ bans: store }) => store.bans());
        if (json === true) terminal.print(JSON.stringify(bans.map(plain)));
        else if (bans.length === 0) terminal.print("nobody is banned");
        else {
          const rows = bans.map((ban) => [ban.nodeId, new Date(ban.bannedAtMs).toISOString(), ban.kind, ban.detail]);
          for (const line of aligned([["node", "since", "kind", "detail"], ...rows])) terminal.print(line);
        }
      });
    parent
      .command("lift-ban <node-id>")
      .description(`take back a ban of ${whose}; give the banned node a new identity first if its key may be known`)
      .requiredOption("--config <file>", `configuration of the ${role} (TOML)`)
      .option("--yes", "do not ask")
      .action(async (nodeId: string, { config, yes }: LiftOptions) => {
        await withBook(await open(config), async ({ bans, lifted }) => {
          const ban = (await bans.bans()).find((each) => each.nodeId === nodeId);
          if (ban === undefined) throw new InvalidInput("ban-unknown", `${nodeId} is not banned here`, { nodeId });
          if (yes !== true) await askFirst(terminal, ban);
          await bans.lift(nodeId);
          await lifted(ban);
        });
        terminal.print(JSON.stringify({ event: "ban-lifted", nodeId }));
        terminal.progress("other members have bans of their own: look at each with `bans`");
      });
  }
}

async function withBook<T>(book: BanBook, work: (book: BanBook) => Promise<T>): Promise<T> {
  try {
    return await work(book);
  } finally {
    await book.close();
  }
}

async function nodeBook(config: string): Promise<BanBook> {
  const { node } = await loadConfiguration(config, nodeConfigurationSchema);
  const { LevelVoteStore } = await import("../storage/level-vote-store.js");
  const bans = await LevelVoteStore.open(join(node.dataFolder, "votes"));
  return { bans, lifted: async () => {}, close: () => bans.close() };
}

/** A lifted ban stands in the audit trail, as the ban does. */
async function coordinatorBook(config: string, { environment, clock }: Terminal): Promise<BanBook> {
  const configuration = await loadConfiguration(config, coordinatorConfigurationSchema);
  const { openAudit, openCoordination } = await import("../coordinator/start.js");
  const { StoredBans } = await import("../coordinator/stored-bans.js");
  const { DatabaseAuditTrail } = await import("../storage/database-audit-trail.js");
  const { coordination, close } = await openCoordination(configuration);
  return {
    bans: new StoredBans(coordination),
    lifted: async ({ nodeId, kind, detail }) => {
      const database = await openAudit(configuration, environment);
      const audit = new DatabaseAuditTrail({}, { database, clock });
      try {
        await audit.append([{ kind: "ban-lifted", walletId: "", subject: nodeId, payload: { kind, detail } }]);
      } finally {
        await audit.close();
        await database.close();
      }
    },
    close,
  };
}

const plain = ({ nodeId, kind, detail, bannedAtMs, evidence }: Ban) => ({
  nodeId,
  kind,
  detail,
  bannedAtMs,
  evidence: evidence.map((bytes) => Buffer.from(bytes).toString("hex")),
});

async function askFirst(terminal: Terminal, { nodeId, kind, detail, bannedAtMs }: Ban): Promise<void> {
  const lines = listed([
    ["node", nodeId],
    ["banned", new Date(bannedAtMs).toISOString()],
    ["for", `${kind}: ${detail}`],
  ]);
  const answer = await terminal.confirm(["lift this ban?", ...lines, "yes or no: "].join("\n"));
  if (answer === true) return;
  if (answer === undefined)
    throw new InvalidInput("option-invalid", "nobody can be asked here; look at the ban and say --yes");
  throw new InvalidInput("not-confirmed", "the ban stays");
}
