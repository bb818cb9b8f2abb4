import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { Kysely, Migrator, PostgresDialect, sql } from "kysely";
import { PGliteDialect } from "kysely-pglite-dialect";
import pg from "pg";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { type AuditKysely, type AuditTables, migrationProvider } from "./audit-schema.js";
import { FolderLock } from "./folder-lock.js";

export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`; never logged. */
  readonly url: string;
  /** 1 to 100, 10 by default. */
  readonly poolSize?: number;
  /** PEM of the certificate authority; with it the server's certificate is verified. */
  readonly caCertificate?: string;
}

const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 10_000;

/**
 * Connection to the audit database. The embedded one survives a killed process but, since PGlite runs without fsync,
 * not the loss of power: production uses PostgreSQL.
 */
export class AuditDatabase {
  readonly kysely: AuditKysely;
  readonly #lock: FolderLock | undefined;

  private constructor(kysely: AuditKysely, lock: FolderLock | undefined) {
    this.kysely = kysely;
    this.#lock = lock;
  }

  /**
   * PostgreSQL in this process (PGlite), kept in `folder`, or in memory without one.
   *
   * @throws Unavailable "folder-locked", "database-unavailable"
   */
  static async embedded(options: { readonly folder?: string } = {}): Promise<AuditDatabase> {
    const { folder } = options;
    if (folder !== undefined) await mkdir(folder, { recursive: true, mode: 0o700 });
    // Two PGlites on one folder would destroy it.
    const lock = folder === undefined ? undefined : await FolderLock.acquire(folder);
    try {
      const pglite = await PGlite.create(folder === undefined ? {} : { dataDir: join(folder, "pglite") });
      return new AuditDatabase(new Kysely<AuditTables>({ dialect: new PGliteDialect(pglite) }), lock);
    } catch (cause) {
      await lock?.release();
      throw databaseUnavailable(cause);
    }
  }

  /**
   * PostgreSQL 15 or later. The first query is what connects.
   *
   * @param dependencies.report hears of connections that broke while idle; they are replaced by themselves
   * @throws InvalidInput "pool-size"
   */
  static postgres(
    options: PostgresOptions,
    dependencies: { readonly report?: (fault: Unavailable) => void } = {},
  ): AuditDatabase {
    const { poolSize = 10, caCertificate } = options;
    if (!Number.isInteger(poolSize) || poolSize < 1 || poolSize > 100) {
      throw new InvalidInput("pool-size", "a pool has 1 to 100 connections", { poolSize });
    }
    const pool = new pg.Pool({
      connectionString: options.url,
      max: poolSize,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      // A client that froze inside a transaction must not hold the head of the trail.
      idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
      keepAlive: true,
      ...(caCertificate === undefined ? {} : { ssl: { ca: caCertificate, rejectUnauthorized: true } }),
    });
    // Without handlers a connection that breaks would end the process.
    pool.on("error", (cause) => dependencies.report?.(databaseUnavailable(cause)));
    pool.on("connect", (client) => client.on("error", () => undefined));
    return new AuditDatabase(new Kysely<AuditTables>({ dialect: new PostgresDialect({ pool }) }), undefined);
  }

  /** Brings the tables to the newest version. Needs the owner's role. @throws Unavailable "database-unavailable" */
  async migrate(): Promise<void> {
    const migrator = new Migrator({ db: this.kysely, provider: migrationProvider });
    const { error } = await migrator.migrateToLatest();
    if (error !== undefined) throw databaseUnavailable(error);
  }

  /**
   * Lets a role record and read, and nothing else: no UPDATE, DELETE or TRUNCATE on what is append-only, and, as it owns
   * no table, no way to switch the triggers off. Call it as the owner, then run coordinators under that role.
   */
  async grantWriter(role: string): Promise<void> {
    if (!/^[a-z_][a-z0-9_]{0,62}$/.test(role)) throw new InvalidInput("role-name", "not a plain role name", { role });
    const to = sql.id(role);
    await sql`revoke all on all tables in schema public from ${to}`.execute(this.kysely);
    await sql`grant usage on schema public to ${to}`.execute(this.kysely);
    await sql`grant select, insert on audit_log, byzantine_violations, presignature_usage to ${to}`.execute(
      this.kysely,
    );
    await sql`grant select, update on audit_head, leader_fence to ${to}`.execute(this.kysely);
    await sql`grant select, insert, update on transactions, voting_rounds to ${to}`.execute(this.kysely);
  }

  /** Answers whether the database does. Never rejects. */
  async healthy(): Promise<boolean> {
    return await sql`select 1`.execute(this.kysely).then(
      () => true,
      () => false,
    );
  }

  async close(): Promise<void> {
    await this.kysely.destroy();
    await this.#lock?.release();
  }
}

/** The database's own words stay in the cause, for logs. */
export function databaseUnavailable(cause: unknown): Unavailable {
  return new Unavailable("database-unavailable", "the audit database does not answer", {}, cause);
}
