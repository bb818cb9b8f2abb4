import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Clock } from "../../../src/crypto/ambient.js";
import { InvalidInput, Unavailable } from "../../../src/crypto/fault.js";
import { systemClock } from "../../../src/node/ambient.js";
import { CheckedChainSource, DEFAULT_CHECKED_OPTIONS } from "../../../src/storage/chain/checked.js";
import type { ChainSource, FoundOutput, UnspentOutput } from "../../../src/wallet/chain-source.js";

const TXID = "cd".repeat(32);
const SCRIPT = Uint8Array.from([0x51, 0x20, ...Buffer.alloc(32, 9)]);
const OUTPUT: UnspentOutput = { txid: TXID, vout: 1, valueSat: 5_000n, scriptPubKey: SCRIPT, confirmedHeight: 90 };
const BLOCK = "0f".repeat(32);

/** The system's timers do not keep a process alive; here nothing else does. */
const clock: Clock = {
  ...systemClock,
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

/** A source that says what it is told to say; what it is not told, it does not answer. */
function source(answers: Partial<ChainSource>): ChainSource {
  const silent = (): Promise<never> => Promise.reject(new Unavailable("down", "down"));
  return {
    tipHeight: silent,
    unspentOutputs: silent,
    transactionStatus: silent,
    transaction: silent,
    feeRateSatPerKvb: silent,
    broadcast: silent,
    findUnspent: silent,
    ...answers,
  };
}

const down = source({});
const claims = (...outputs: UnspentOutput[]) =>
  source({ unspentOutputs: async () => outputs, findUnspent: async () => outputs });
const sees = (...outputs: (FoundOutput | undefined)[]) => source({ findUnspent: async () => outputs });

function check(primary: ChainSource, secondary: ChainSource, requireBoth = false) {
  const options = { ...DEFAULT_CHECKED_OPTIONS, pauseMs: 1, requireBoth };
  return new CheckedChainSource(options, { clock, primary, secondary });
}

const disagree = (aspect: string) => (fault: unknown) => {
  const { kind, code, facts } = fault as { kind: string; code: string; facts: Record<string, unknown> };
  assert.deepEqual([kind, code, facts["aspect"]], ["unavailable", "chain-sources-disagree", aspect]);
  return true;
};

describe("checked chain source", () => {
  const lies: readonly (readonly [string, string, FoundOutput | undefined])[] = [
    ["a value that is a satoshi off", "value", { ...OUTPUT, valueSat: 5_001n }],
    ["another script", "script", { ...OUTPUT, scriptPubKey: SCRIPT.slice(0, 33) }],
    ["an output that is spent", "spentness", undefined],
  ];
  for (const [what, aspect, seen] of lies) {
    it(`${what} is a disagreement on ${aspect}`, async () => {
      await assert.rejects(check(claims(OUTPUT), sees(seen)).unspentOutputs(SCRIPT), disagree(aspect));
      await assert.rejects(check(claims(OUTPUT), sees(seen)).findUnspent([OUTPUT]), disagree(aspect));
    });
  }

  it("a race between two answers is not a disagreement: the sources are compared three times", async () => {
    let asked = 0;
    const late = source({ findUnspent: async () => (++asked < 3 ? [undefined] : [OUTPUT]) });
    assert.deepEqual(await check(claims(OUTPUT), late).unspentOutputs(SCRIPT), [OUTPUT]);
    assert.equal(asked, 3);
  });

  it("an unconfirmed output that only one source knows is left out, not an error", async () => {
    const waiting = { ...OUTPUT, vout: 2, confirmedHeight: 0 };
    assert.deepEqual(await check(claims(OUTPUT, waiting), sees(OUTPUT, undefined)).unspentOutputs(SCRIPT), [OUTPUT]);
    assert.deepEqual(await check(claims(waiting), sees(undefined)).findUnspent([waiting]), [undefined]);
  });

  it("an output counts as confirmed when both sources say so", async () => {
    const [output] = await check(claims(OUTPUT), sees({ ...OUTPUT, confirmedHeight: 0 })).unspentOutputs(SCRIPT);
    assert.equal(output?.confirmedHeight, 0);
  });

  it("one source alone is believed, unless both are required", async () => {
    assert.deepEqual(await check(claims(OUTPUT), down).unspentOutputs(SCRIPT), [OUTPUT]);
    assert.deepEqual(await check(down, claims(OUTPUT)).unspentOutputs(SCRIPT), [OUTPUT]);
    assert.deepEqual(await check(down, claims(OUTPUT)).findUnspent([OUTPUT]), [OUTPUT]);
    for (const [primary, secondary] of [
      [claims(OUTPUT), down],
      [down, claims(OUTPUT)],
    ] as const) {
      const strict = check(primary, secondary, true);
      await assert.rejects(strict.unspentOutputs(SCRIPT), { kind: "unavailable", code: "chain-source-alone" });
      await assert.rejects(strict.findUnspent([OUTPUT]), { kind: "unavailable", code: "chain-source-alone" });
    }
  });

  it("no source at all is Unavailable, whatever is asked", async () => {
    const none = check(down, down);
    const codes = { kind: "unavailable", code: "chain-sources-unavailable" };
    await assert.rejects(none.tipHeight(), codes);
    await assert.rejects(none.unspentOutputs(SCRIPT), codes);
    await assert.rejects(none.findUnspent([OUTPUT]), codes);
    await assert.rejects(none.transactionStatus(TXID), codes);
    await assert.rejects(none.transaction(TXID), codes);
    await assert.rejects(none.feeRateSatPerKvb(2), codes);
    await assert.rejects(none.broadcast(new Uint8Array(1)), { kind: "unavailable" });
  });

  it("tips may differ by two blocks, and the lower one counts", async () => {
    const at = (height: number) => source({ tipHeight: async () => height });
    assert.equal(await check(at(102), at(100)).tipHeight(), 100);
    await assert.rejects(check(at(103), at(100)).tipHeight(), disagree("tip"));
    assert.equal(await check(at(103), down).tipHeight(), 103);
  });

  it("a transaction is confirmed when both sources name the same block", async () => {
    const says = (confirmedHeight: number, blockHash: string, known = true) =>
      source({ transactionStatus: async () => ({ known, confirmedHeight, blockHash }) });
    const status = (a: ChainSource, b: ChainSource) => check(a, b).transactionStatus(TXID);
    const confirmed = { known: true, confirmedHeight: 90, blockHash: BLOCK };
    const waiting = { known: true, confirmedHeight: 0, blockHash: "" };
    assert.deepEqual(await status(says(90, BLOCK), says(90, BLOCK)), confirmed);
    assert.deepEqual(await status(says(90, BLOCK), says(0, "")), waiting);
    assert.deepEqual(await status(says(0, ""), says(90, BLOCK)), waiting);
    assert.deepEqual(await status(says(90, BLOCK), says(0, "", false)), confirmed);
    assert.deepEqual(await status(says(0, "", false), says(90, BLOCK)), confirmed);
    assert.deepEqual(await status(down, says(90, BLOCK)), confirmed);
    await assert.rejects(status(says(90, BLOCK), says(90, TXID)), disagree("block"));
  });

  it("a transaction is fetched from the second source when the first one does not know it", async () => {
    const raw = Uint8Array.of(1, 2, 3);
    const knows = source({ transaction: async () => raw });
    const knowsNot = source({ transaction: async () => undefined });
    assert.equal(await check(knowsNot, knows).transaction(TXID), raw);
    assert.equal(await check(down, knows).transaction(TXID), raw);
    assert.equal(await check(knowsNot, down).transaction(TXID), undefined);
  });

  it("a transaction that one source takes is sent; a refusal is reported when nobody takes it", async () => {
    const takes = source({ broadcast: async () => TXID });
    const refuses = source({ broadcast: () => Promise.reject(new InvalidInput("transaction-refused", "dust")) });
    const send = (a: ChainSource, b: ChainSource) => check(a, b).broadcast(new Uint8Array(1));
    assert.equal(await send(takes, down), TXID);
    assert.equal(await send(down, takes), TXID);
    assert.equal(await send(refuses, takes), TXID);
    for (const [a, b] of [
      [refuses, down],
      [down, refuses],
      [refuses, refuses],
    ] as const) {
      await assert.rejects(send(a, b), { kind: "invalid-input", code: "transaction-refused" });
    }
  });
});
