import { mkdir } from "node:fs/promises";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ClassicLevel } from "classic-level";
import { type LedgerStatement, LedgerStatementSchema } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { Unavailable } from "../crypto/fault.js";

/**
 * What a node remembers of its peers' ledgers, one row a peer, in an embedded LevelDB. The statements are signed by
 * whom they are about; nothing in them is secret.
 */
export class LevelWitnessStore {
  readonly #database: ClassicLevel<string, Uint8Array>;
  /** What is in the database, as far as it was asked for: this process alone writes it. */
  readonly #known = new Map<string, LedgerStatement>();

  private constructor(database: ClassicLevel<string, Uint8Array>) {
    this.#database = database;
  }

  /** @throws Unavailable `witness-unreadable` when the folder cannot be opened, for example because a process holds it */
  static async open(folder: string): Promise<LevelWitnessStore> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const database = new ClassicLevel<string, Uint8Array>(folder, { valueEncoding: "view" });
    try {
      await database.open();
    } catch (cause) {
      throw new Unavailable(
        "witness-unreadable",
        "the folder of what peers said of their ledgers cannot be opened",
        { folder },
        cause,
      );
    }
    return new LevelWitnessStore(database);
  }

  async load(nodeId: string): Promise<LedgerStatement | undefined> {
    const known = this.#known.get(nodeId);
    if (known !== undefined) return known;
    const bytes = await this.#database.get(nodeId);
    if (bytes === undefined) return undefined;
    const statement = fromBinary(LedgerStatementSchema, bytes);
    this.#known.set(nodeId, statement);
    return statement;
  }

  recall(nodeId: string): Promise<LedgerStatement | undefined> {
    return this.load(nodeId);
  }

  /** Resolves when it is on the medium. @throws Unavailable `witness-unwritten` */
  async save(statement: LedgerStatement): Promise<void> {
    try {
      await this.#database.put(statement.nodeId, toBinary(LedgerStatementSchema, statement), { sync: true });
      this.#known.set(statement.nodeId, statement);
    } catch (cause) {
      throw new Unavailable("witness-unwritten", "a peer's statement could not be made durable", {}, cause);
    }
  }

  async close(): Promise<void> {
    await this.#database.close();
  }
}
