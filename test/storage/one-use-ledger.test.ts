import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { systemRandom } from "../../src/node/ambient.js";
import { type LedgerDisk, LevelDisk, type RowChange } from "../../src/storage/ledger-disk.js";
import { type OneUseItem, OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { ManualClock } from "./manual-clock.js";
import { scratchFolder } from "./scratch.js";

const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;
const clock = new ManualClock();
const key = () => SecretBytes.adopt(new Uint8Array(32).fill(7));
const openUnconfirmed = (folder: string, disk?: LedgerDisk) =>
  OneUseLedger.open({ folder, key: key() }, { clock, random: systemRandom, ...(disk === undefined ? {} : { disk }) });
/** As after the peers were asked. */
async function open(folder: string, disk?: LedgerDisk): Promise<OneUseLedger> {
  const ledger = await openUnconfirmed(folder, disk);
  await ledger.confirm();
  return ledger;
}

let ids = 0;
function item(fields: Partial<OneUseItem> = {}): OneUseItem {
  return {
    kind: "presignature",
    id: `item-${ids++}`,
    walletId: "treasury",
    walletEpoch: 1,
    signers: ["node-1", "node-2"],
    createdAtMs: clock.nowMs(),
    secret: SecretBytes.copyOf(Buffer.from("k and chi of a presignature")),
    ...fields,
  };
}
const items = (count: number, fields: Partial<OneUseItem> = {}) => Array.from({ length: count }, () => item(fields));
const idsOf = (found: readonly { id: string }[]) => found.map(({ id }) => id).sort();

/** Rejects when a promise hangs. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${ms} ms`)), ms);
  });
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A disk on which chosen writes fail, after or before they reach LevelDB. */
class FailingDisk implements LedgerDisk {
  fail: "never" | "before" | "after" = "never";
  reopened = 0;
  readonly #disk: LedgerDisk;
  constructor(disk: LedgerDisk) {
    this.#disk = disk;
  }
  get(rowKey: string) {
    return this.#disk.get(rowKey);
  }
  scan(prefix: string) {
    return this.#disk.scan(prefix);
  }
  async write(changes: readonly RowChange[]) {
    if (this.fail === "before") throw new Error("ENOSPC");
    await this.#disk.write(changes);
    if (this.fail === "after") throw new Error("EIO");
  }
  compact(prefix: string) {
    return this.#disk.compact(prefix);
  }
  async reopen() {
    this.reopened++;
    await this.#disk.reopen();
  }
  close() {
    return this.#disk.close();
  }
}

describe("one-use ledger", () => {
  it("gives each item once, with its secret, oldest first", async () => {
    const ledger = await open(scratchFolder());
    const [old, young] = [item({ createdAtMs: 1 }), item({ createdAtMs: 2 })];
    await ledger.put([old]);
    await ledger.put([young]);
    const first = await ledger.take({ kind: "presignature" });
    assert.equal(first?.id, old.id);
    assert.equal(Buffer.from(first.secret.reveal()).toString(), "k and chi of a presignature");
    assert.equal((await ledger.take({}))?.id, young.id);
    assert.equal(await ledger.take({}), undefined);
    assert.deepEqual(ledger.counts(), { available: 0, inUse: 0, used: 2n, failed: 0n, expired: 0n });
    await ledger.close();
  });

  it("finds items by kind, id, wallet, epoch and signer set", async () => {
    const ledger = await open(scratchFolder());
    const nonce = item({ kind: "frost-nonce" });
    const other = item({ walletId: "other" });
    const later = item({ walletEpoch: 2 });
    const pair = item({ signers: ["node-2", "node-3"] });
    await ledger.put([item(), nonce, other, later, pair]);
    assert.equal((await ledger.take({ kind: "frost-nonce" }))?.id, nonce.id);
    assert.equal((await ledger.take({ walletId: "other" }))?.id, other.id);
    assert.equal((await ledger.take({ walletEpoch: 2 }))?.id, later.id);
    assert.equal((await ledger.take({ signers: ["node-3", "node-2"] }))?.id, pair.id);
    assert.equal(await ledger.take({ signers: ["node-1"] }), undefined);
    assert.equal(await ledger.take({ id: nonce.id }), undefined);
    assert.equal(ledger.counts({ walletId: "treasury" }).available, 1);
    await ledger.close();
  });

  it("concurrent takes of one item have one winner", async () => {
    const ledger = await open(scratchFolder());
    const wanted = item();
    await ledger.put([wanted]);
    const taken = await Promise.all(Array.from({ length: 100 }, () => ledger.take({ id: wanted.id })));
    assert.equal(taken.filter((found) => found !== undefined).length, 1);
    await ledger.close();
  });

  it("concurrent takes of many items are all different", async () => {
    const ledger = await open(scratchFolder());
    await ledger.put(items(50));
    const taken = await Promise.all(Array.from({ length: 60 }, () => ledger.take({})));
    const found = taken.flatMap((one) => (one === undefined ? [] : [one.id]));
    assert.equal(found.length, 50);
    assert.equal(new Set(found).size, 50);
    await ledger.close();
  });

  it("an id never comes back, whatever became of it, also after a restart", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    const [free, used, failed, burned] = [item(), item(), item(), item({ walletId: "burned" })];
    await ledger.put([free, used, failed, burned]);
    await ledger.take({ id: used.id });
    await ledger.take({ id: failed.id });
    await ledger.fail(failed, "a signer fell silent");
    await ledger.burnAll({ walletId: "burned" }, "test");
    for (let round = 0; round < 2; round++) {
      for (const known of [free, used, failed, burned]) {
        await assert.rejects(ledger.put([item(), known]), code("item-known"));
      }
      assert.deepEqual(ledger.counts(), { available: 1, inUse: 0, used: 1n, failed: 2n, expired: 0n });
      await ledger.close();
      ledger = await open(folder);
      assert.equal(ledger.damage, undefined);
    }
    const twice = item();
    await assert.rejects(ledger.put([twice, twice]), code("item-known"));
    await assert.rejects(ledger.fail(free, "never taken"), code("item-unknown"));
    await assert.rejects(ledger.fail(failed, "twice"), code("item-unknown"));
    await ledger.close();
  });

  it("what is set aside serves its holder only, until it is released", async () => {
    const ledger = await open(scratchFolder());
    await ledger.put(items(2));
    const mine = ledger.reserve({}, "payment-1");
    assert.ok(mine && !("secret" in mine));
    assert.equal(ledger.counts().inUse, 1);
    assert.equal(await ledger.take({ id: mine.id }), undefined);
    assert.equal(await ledger.take({ id: mine.id }, "payment-2"), undefined);
    ledger.release(mine, "payment-2");
    assert.equal(ledger.counts().inUse, 1);
    assert.equal((await ledger.take({}, "payment-1"))?.id, mine.id);
    const other = ledger.reserve({}, "payment-3");
    assert.ok(other);
    assert.equal(ledger.reserve({}, "payment-4"), undefined);
    ledger.release(other, "payment-3");
    assert.equal((await ledger.take({ id: other.id }))?.id, other.id);
    await ledger.close();
  });

  it("burns by wallet and epoch, and refuses burned epochs for ever", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    await ledger.put([...items(2), item({ walletEpoch: 2 }), item({ walletId: "other" })]);
    assert.equal(await ledger.burnAll({ walletId: "treasury", belowEpoch: 2 }, "refresh"), 2);
    assert.equal(await ledger.take({ walletEpoch: 1, walletId: "treasury" }), undefined);
    await assert.rejects(ledger.put([item()]), code("item-epoch-over"));
    assert.equal(await ledger.burnAll({ walletId: "other", belowEpoch: 1 }, "nothing is older"), 0);
    assert.equal(await ledger.burnAll({ walletId: "empty", belowEpoch: 9 }, "no items yet"), 0);
    await ledger.close();
    ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    await assert.rejects(ledger.put([item()]), code("item-epoch-over"));
    await assert.rejects(ledger.put([item({ walletId: "empty", walletEpoch: 8 })]), code("item-epoch-over"));
    assert.equal(await ledger.burnAll({}, "restored"), 2);
    assert.equal(ledger.counts().available, 0);
    await ledger.close();
  });

  it("burns more items than go into one write", async () => {
    const ledger = await open(scratchFolder());
    for (let round = 0; round < 3; round++) await ledger.put(items(400));
    assert.equal(await within(20_000, ledger.burnAll({}, "restored")), 1200);
    assert.equal(ledger.counts().available, 0);
    await ledger.close();
  });

  it("prunes what is old and forgets what can never come back", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    await ledger.put(items(3, { createdAtMs: clock.nowMs() - 100_000 }));
    await ledger.put(items(1));
    const held = ledger.reserve({}, "payment");
    assert.deepEqual(await ledger.prune(50_000), { expired: 2, forgotten: 0 });
    assert.deepEqual(ledger.counts(), { available: 1, inUse: 1, used: 0n, failed: 0n, expired: 2n });
    assert.ok(held);
    await ledger.take({}, "payment");
    await ledger.burnAll({ walletId: "treasury", belowEpoch: 2 }, "refresh");
    assert.deepEqual(await ledger.prune(50_000), { expired: 0, forgotten: 4 });
    assert.deepEqual(ledger.counts(), { available: 0, inUse: 0, used: 0n, failed: 0n, expired: 0n });
    await ledger.close();
    ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    await ledger.close();
  });

  it("expires what is 24 hours old, not a millisecond earlier, and never what was used", async () => {
    const DAY_MS = 86_400_000;
    const ledger = await open(scratchFolder());
    await ledger.put([item({ createdAtMs: clock.nowMs() }), item({ createdAtMs: clock.nowMs() })]);
    await ledger.take({});
    await clock.advance(DAY_MS);
    assert.deepEqual(await ledger.prune(DAY_MS), { expired: 0, forgotten: 0 });
    await clock.advance(1);
    assert.deepEqual(await ledger.prune(DAY_MS), { expired: 1, forgotten: 0 });
    assert.deepEqual(ledger.counts(), { available: 0, inUse: 0, used: 1n, failed: 0n, expired: 1n });
    await ledger.close();
  });

  it("bounds items, batches and secrets", async () => {
    const ledger = await OneUseLedger.open(
      { folder: scratchFolder(), key: key(), maxLiveItems: 3 },
      { clock, random: systemRandom },
    );
    await assert.rejects(ledger.put(items(4)), code("ledger-full"));
    await ledger.put(items(3));
    await assert.rejects(ledger.put(items(1)), code("ledger-full"));
    await ledger.take({});
    await ledger.put([item({ secret: SecretBytes.adopt(new Uint8Array(1024 * 1024)) })]);
    const wrong: Partial<OneUseItem>[] = [
      { id: "" },
      { id: "x".repeat(129) },
      { id: "a b" },
      { walletId: "__proto__" },
      { walletEpoch: -1 },
      { signers: [] },
      { signers: ["a", "a"] },
      { secret: SecretBytes.adopt(new Uint8Array(0)) },
      { secret: SecretBytes.adopt(new Uint8Array(1024 * 1024 + 1)) },
    ];
    for (const fields of wrong) await assert.rejects(ledger.put([item(fields)]), code("item-invalid"));
    await assert.rejects(ledger.put(items(1001)), code("item-invalid"));
    await ledger.close();
    await assert.rejects(ledger.take({}), code("ledger-closed"));
  });

  it("keeps a second opener out", async () => {
    const folder = scratchFolder();
    const ledger = await open(folder);
    await assert.rejects(open(folder), code("ledger-locked"));
    await ledger.close();
  });

  it("a wrong key opens nothing and changes nothing", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    await ledger.put(items(1));
    await ledger.close();
    const wrong = SecretBytes.adopt(new Uint8Array(32).fill(8));
    await assert.rejects(
      OneUseLedger.open({ folder, key: wrong }, { clock, random: systemRandom }),
      code("ledger-head-corrupted"),
    );
    ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    assert.ok(await ledger.take({}));
    await ledger.close();
  });
});

describe("one-use ledger on a bad disk", () => {
  const withRows = async (folder: string, edit: (disk: LevelDisk) => Promise<void>) => {
    const disk = await LevelDisk.open(folder);
    await edit(disk);
    await disk.close();
  };
  const rows = async (disk: LevelDisk) => {
    const found: [string, Uint8Array][] = [];
    for await (const [rowKey, value] of disk.scan("live/")) found.push([rowKey, Uint8Array.from(value)]);
    return found;
  };

  it("a row that does not open is put out of use, and only that row", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    await ledger.put(items(3));
    await ledger.close();
    await withRows(folder, async (disk) => {
      const [first] = await rows(disk);
      assert.ok(first);
      first[1][40] = (first[1][40] ?? 0) ^ 1;
      await disk.write([{ key: first[0], value: first[1] }]);
    });
    ledger = await open(folder);
    assert.deepEqual(ledger.damage, { burned: 0, quarantined: 1 });
    assert.deepEqual(ledger.counts(), { available: 2, inUse: 0, used: 0n, failed: 1n, expired: 0n });
    await ledger.close();
    ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    await ledger.close();
  });

  it("a row that breaks while the ledger is open is a typed error and a tombstone", async () => {
    const folder = scratchFolder();
    const disk = await LevelDisk.open(folder);
    let ledger = await open(folder, disk);
    const [bad, good] = [item({ createdAtMs: 1 }), item({ createdAtMs: 2 })];
    await ledger.put([bad, good]);
    const rowKey = `live/presignature/${bad.id}`;
    const value = Uint8Array.from((await disk.get(rowKey)) ?? []);
    value[60] = (value[60] ?? 0) ^ 1;
    await disk.write([{ key: rowKey, value }]);
    await assert.rejects(ledger.take({}), code("ledger-row-corrupted"));
    assert.equal((await ledger.take({}))?.id, good.id);
    assert.equal(await ledger.take({ id: bad.id }), undefined);
    await assert.rejects(ledger.put([bad]), code("item-known"));
    await ledger.close();
    ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    assert.equal(ledger.counts().failed, 1n);
    await ledger.close();
  });

  it("rows in each other's place open nowhere", async () => {
    const folder = scratchFolder();
    const ledger = await open(folder);
    await ledger.put(items(2));
    await ledger.close();
    await withRows(folder, async (disk) => {
      const [first, second] = await rows(disk);
      assert.ok(first && second);
      await disk.write([
        { key: first[0], value: second[1] },
        { key: second[0], value: first[1] },
      ]);
    });
    const again = await open(folder);
    assert.deepEqual(again.damage, { burned: 0, quarantined: 2 });
    await again.close();
  });

  it("a tombstone that was lost or turned back burns everything", async () => {
    for (const how of ["turned back", "lost"] as const) {
      const folder = scratchFolder();
      let ledger = await open(folder);
      const used = item();
      await ledger.put([used, ...items(3)]);
      await ledger.close();
      const [live, gone] = [`live/presignature/${used.id}`, `gone/presignature/${used.id}`];
      let before: Uint8Array | undefined;
      await withRows(folder, async (disk) => {
        before = Uint8Array.from((await disk.get(live)) ?? []);
      });
      ledger = await open(folder);
      await ledger.take({ id: used.id });
      await ledger.close();
      await withRows(folder, (disk) =>
        disk.write([
          { key: gone, value: undefined },
          { key: live, value: how === "lost" ? undefined : before },
        ]),
      );
      ledger = await open(folder);
      assert.deepEqual(ledger.damage, { burned: how === "lost" ? 3 : 4, quarantined: 0 }, how);
      assert.equal(await ledger.take({}), undefined, how);
      await ledger.close();
      ledger = await open(folder);
      assert.equal(ledger.damage, undefined, "the burning was accounted for");
      await ledger.close();
    }
  });

  it("a damaged or missing head is refused", async () => {
    const folder = scratchFolder();
    const ledger = await open(folder);
    await ledger.put(items(1));
    await ledger.close();
    await withRows(folder, async (disk) => {
      const value = Uint8Array.from((await disk.get("head")) ?? []);
      value[30] = (value[30] ?? 0) ^ 1;
      await disk.write([{ key: "head", value }]);
    });
    await assert.rejects(open(folder), code("ledger-head-corrupted"));
    await withRows(folder, (disk) => disk.write([{ key: "head", value: undefined }]));
    await assert.rejects(open(folder), code("ledger-head-corrupted"));
  });

  for (const when of ["before", "after"] as const) {
    it(`a take whose write fails ${when} reaching the disk gives nothing and burns the item`, async () => {
      const folder = scratchFolder();
      const disk = new FailingDisk(await LevelDisk.open(folder));
      let ledger = await open(folder, disk);
      const [first, second] = [item({ createdAtMs: 1 }), item({ createdAtMs: 2 })];
      await ledger.put([first, second]);
      disk.fail = when;
      await assert.rejects(ledger.take({}), code("ledger-write-failed"));
      assert.equal(await ledger.take({ id: first.id }), undefined);
      await assert.rejects(ledger.take({}), code("ledger-write-failed"), "the disk is not better yet");
      disk.fail = "never";
      assert.equal((await ledger.take({}))?.id, second.id, "what was not read yet was kept");
      disk.fail = when;
      const late = item();
      await assert.rejects(ledger.put([late]), code("ledger-write-failed"));
      disk.fail = "never";
      assert.equal(await ledger.take({}), undefined, "what failed to be put is not available");
      await assert.rejects(ledger.put([late]), code("item-known"));
      assert.equal(disk.reopened >= 2, true);
      assert.deepEqual(ledger.counts(), { available: 0, inUse: 0, used: 2n, failed: 1n, expired: 0n });
      await ledger.close();
      ledger = await open(folder);
      assert.equal(ledger.damage, undefined);
      assert.deepEqual(ledger.counts(), { available: 0, inUse: 0, used: 2n, failed: 1n, expired: 0n });
      await ledger.close();
    });
  }

  it("a full disk gives nothing away", async (context) => {
    const folder = join(scratchFolder(), "small");
    mkdirSync(folder);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], { stdio: "ignore" });
    } catch {
      context.skip("no right to mount a small file system");
      return;
    }
    try {
      const ledger = await open(join(folder, "ledger"));
      await ledger.put(items(20));
      writeFileSync(join(folder, "ballast"), "");
      let full = false;
      for (let size = 4 * 1024 * 1024; size >= 4096; size = Math.floor(size / 2)) {
        try {
          writeFileSync(join(folder, "ballast"), Buffer.alloc(size), { flag: "a" });
        } catch {
          full = true;
        }
      }
      assert.ok(full);
      const returned: string[] = [];
      let refused = 0;
      for (let n = 0; n < 15; n++) {
        try {
          const taken = await ledger.take({});
          if (taken !== undefined) returned.push(taken.id);
        } catch (error) {
          assert.ok(code("ledger-write-failed")(error), String(error));
          refused++;
        }
      }
      assert.ok(refused > 0, "the disk was not full enough");
      writeFileSync(join(folder, "ballast"), ""); // room again
      const after = await ledger.take({});
      assert.ok(after !== undefined && !returned.includes(after.id));
      returned.push(after.id);
      await ledger.close();
      const again = await open(join(folder, "ledger"));
      assert.equal(again.damage, undefined);
      for (const id of returned) assert.equal(await again.take({ id }), undefined);
      await again.close();
    } finally {
      execFileSync("umount", ["-l", folder]);
    }
  });

  it("a used secret leaves the files at the next compaction", async () => {
    const folder = scratchFolder();
    const disk = await LevelDisk.open(folder);
    const ledger = await open(folder, disk);
    const one = item();
    await ledger.put([one]);
    const sealed = Buffer.from((await disk.get(`live/presignature/${one.id}`)) ?? []).subarray(26, 60);
    const onDisk = () => readdirSync(folder).some((name) => readFileSync(join(folder, name)).includes(sealed));
    assert.ok(onDisk());
    await ledger.take({});
    await ledger.prune(1_000_000);
    assert.ok(!onDisk());
    await ledger.close();
  });
});

describe("one-use ledger and restored copies", () => {
  it("the epoch grows with each open and the lineage stays", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    const first = ledger.position();
    assert.equal(first.epoch, 1n);
    await ledger.close();
    ledger = await open(folder);
    assert.equal(ledger.epoch(), 2n);
    assert.equal(ledger.position().lineage, first.lineage);
    assert.equal(ledger.isBehind(first), false);
    await ledger.close();
    const other = await open(scratchFolder());
    assert.notEqual(other.position().lineage, first.lineage);
    await other.close();
  });

  it("a restored copy is behind what was remembered", async () => {
    const folder = scratchFolder();
    const copy = scratchFolder();
    let ledger = await open(folder);
    await ledger.put(items(2));
    await ledger.close();
    cpSync(folder, copy, { recursive: true });
    ledger = await open(folder);
    await ledger.take({});
    const remembered = ledger.position();
    await ledger.close();
    const restored = await openUnconfirmed(copy);
    assert.equal(restored.damage, undefined, "a whole copy is consistent in itself");
    assert.equal(restored.isBehind(remembered), true);
    await assert.rejects(restored.take({}), code("ledger-unconfirmed"));
    assert.equal(await restored.outlive(remembered, "restored"), 2);
    assert.equal(restored.isConfirmed, true);
    assert.equal(await restored.take({}), undefined);
    await restored.close();
    const original = await openUnconfirmed(folder);
    assert.equal(original.isBehind(remembered), false);
    await original.close();
  });

  it("a copy taken while it ran is found by its sequence", async () => {
    const folder = scratchFolder();
    const copy = scratchFolder();
    const ledger = await open(folder);
    await ledger.put(items(3));
    cpSync(folder, copy, { recursive: true });
    await ledger.take({});
    await ledger.take({});
    const remembered = ledger.position();
    await ledger.close();
    const restored = await openUnconfirmed(copy);
    assert.ok(restored.isBehind(remembered));
    await restored.close();
  });

  it("opening a copy again and again does not bring it level", async () => {
    const folder = scratchFolder();
    const copy = scratchFolder();
    const ledger = await open(folder);
    await ledger.put(items(3));
    cpSync(folder, copy, { recursive: true });
    await ledger.take({});
    const remembered = ledger.position();
    await ledger.close();
    for (let opening = 0; opening < 12; opening++) {
      const restored = await openUnconfirmed(copy);
      await restored.put(items(1));
      assert.ok(restored.isBehind(remembered), `opening ${opening}`);
      await assert.rejects(restored.take({}), code("ledger-unconfirmed"));
      assert.throws(() => restored.reserve({}, "payment"), code("ledger-unconfirmed"));
      await restored.close();
    }
    const restored = await openUnconfirmed(copy);
    assert.ok(restored.position().sequence > remembered.sequence && restored.position().epoch > remembered.epoch);
    assert.equal(await restored.outlive(remembered, "restored"), 15);
    await restored.close();
  });

  it("an outlived ledger stands beyond what was remembered, also after a restart, and gives what is put from then on", async () => {
    const folder = scratchFolder();
    let ledger = await open(folder);
    await ledger.put(items(2));
    const other = { lineage: "00".repeat(16), epoch: 40n, sequence: 900n };
    assert.equal(ledger.isBehind(other), true, "a ledger that took this one's place");
    assert.equal(await ledger.outlive(other, "replaced"), 2);
    const after = ledger.position();
    assert.ok(after.epoch > 40n && after.sequence > 900n);
    await ledger.put(items(1));
    await ledger.close();
    ledger = await openUnconfirmed(folder);
    assert.equal(ledger.isBehind(after), false);
    await assert.rejects(ledger.take({}), code("ledger-unconfirmed"));
    await ledger.confirm();
    assert.ok(await ledger.take({}));
    await ledger.close();
  });

  it("a ledger without items gives at once what is put", async () => {
    const folder = scratchFolder();
    let ledger = await openUnconfirmed(folder);
    assert.equal(ledger.isConfirmed, true);
    await ledger.put(items(1));
    assert.ok(await ledger.take({}));
    await ledger.close();
    ledger = await openUnconfirmed(folder);
    assert.equal(ledger.isConfirmed, true);
    await ledger.close();
  });

  it("a confirmation or an outliving that does not reach the disk leaves the ledger unconfirmed", async () => {
    const folder = scratchFolder();
    const first = await open(folder);
    await first.put(items(2));
    await first.close();
    const disk = new FailingDisk(await LevelDisk.open(folder));
    const ledger = await openUnconfirmed(folder, disk);
    disk.fail = "before";
    await assert.rejects(ledger.confirm(), code("ledger-write-failed"));
    await assert.rejects(ledger.take({}), code("ledger-unconfirmed"));
    await assert.rejects(ledger.outlive(undefined, "test"), code("ledger-write-failed"));
    await assert.rejects(ledger.take({}), code("ledger-unconfirmed"));
    disk.fail = "never";
    await ledger.confirm();
    assert.equal(await ledger.take({}), undefined, "the burning was only not written");
    await ledger.close();
  });

  it("what is not on disk yet is no position", async () => {
    const disk = new FailingDisk(await LevelDisk.open(scratchFolder()));
    const ledger = await open("", disk);
    await ledger.put(items(1));
    const before = ledger.position();
    disk.fail = "before";
    await assert.rejects(ledger.take({}), code("ledger-write-failed"));
    assert.deepEqual(ledger.position(), before);
    disk.fail = "never";
    await ledger.close();
  });
});

describe("one-use ledger and kill -9", () => {
  it("in 60 kills no item is returned twice", { timeout: 180_000 }, async () => {
    const folder = scratchFolder();
    const script = fileURLToPath(new URL("ledger-taker.js", import.meta.url));
    const seen = new Set<string>();
    let epoch = 0;
    let rounds = 0;
    for (let round = 0; round < 60; round++) {
      const child = spawn(process.execPath, [script, folder], { stdio: ["ignore", "pipe", "inherit"] });
      let output = "";
      // Counted in lines, not in time alone: on a busy machine 50 ms may be a single take.
      const lived = Math.floor(Math.random() * 30);
      let isDoomed = false;
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        if (isDoomed || output.split("\n").length - 1 <= lived) return;
        isDoomed = true;
        setTimeout(() => child.kill("SIGKILL"), Math.random() * 10);
      });
      await once(child, "close");
      const lines = output.split("\n").slice(0, -1);
      for (const line of lines) {
        const [word, value = ""] = line.split(" ");
        if (word === "open") {
          assert.ok(Number(value) > epoch);
          epoch = Number(value);
          rounds++;
        } else {
          assert.equal(word, "took", line);
          assert.ok(!seen.has(value), `${value} was returned twice`);
          seen.add(value);
        }
      }
    }
    assert.equal(rounds, 60, "every restart opened the ledger");
    assert.ok(seen.size > 500, `only ${seen.size} items were taken: the test proves little`);
    const ledger = await open(folder);
    assert.equal(ledger.damage, undefined);
    for (const id of idsOf(ledger.items())) assert.ok(!seen.has(id), `${id} was returned and is available again`);
    assert.ok(ledger.counts().used >= BigInt(seen.size));
    await ledger.close();
  });
});
