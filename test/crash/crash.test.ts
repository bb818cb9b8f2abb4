import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CHANGE_POINTS } from "./instrument.js";
import { sweep } from "./sweep.js";
import { checkOneUse, type WireLine } from "./wire-log.js";

const NONE = { progress: () => {}, timeLimitMs: 240_000, seed: "suite" };

function envelope(facts: Partial<Extract<WireLine, { type: "envelope" }>>): WireLine {
  return {
    type: "envelope",
    at: "node-2",
    direction: "received",
    ssid: "aa".repeat(32),
    round: "shares",
    sender: "node-1",
    payload: "00".repeat(32),
    uses: ["presignature-1"],
    messages: ["01"],
    key: "11".repeat(32),
    ...facts,
  };
}

describe("the check of a wire log", () => {
  it("finds a presignature in two sessions, whether their messages differ or not", () => {
    const again = envelope({ ssid: "bb".repeat(32) });
    const { reuses } = checkOneUse([envelope({}), again]);
    assert.deepEqual(reuses, [
      { sender: "node-1", used: "presignature-1", sessions: ["aa".repeat(32), "bb".repeat(32)] },
    ]);
  });

  it("counts a share once, however many logs it is in, and each sender for itself", () => {
    const lines = [envelope({}), envelope({ at: "node-3" }), envelope({ sender: "node-2" })];
    assert.deepEqual(checkOneUse(lines), { shares: 2, used: 2, reuses: [], unexplained: [], keys: 1, strayed: [] });
  });

  it("finds what was made under one key and used under another, and a second share whatever its epoch", () => {
    const key = "22".repeat(32);
    const again = envelope({ ssid: "bb".repeat(32), key });
    const { keys, strayed, reuses } = checkOneUse([envelope({}), again]);
    assert.deepEqual([keys, strayed, reuses.length], [2, ["presignature-1"], 1]);
    const other = envelope({ ssid: "bb".repeat(32), key, uses: ["presignature-2"] });
    assert.deepEqual(checkOneUse([envelope({}), other]).strayed, []);
  });

  it("joins a share with the nonces that its sender announced before", () => {
    const nonces = (ssid: string) => envelope({ ssid, round: "nonces", uses: ["02ab"] });
    const share = (ssid: string) => envelope({ ssid, uses: [] });
    const [first, second] = ["aa".repeat(32), "bb".repeat(32)];
    assert.equal(checkOneUse([nonces(first), share(first), nonces(second)]).reuses.length, 0);
    assert.equal(checkOneUse([nonces(first), share(first), nonces(second), share(second)]).reuses.length, 1);
  });

  it("says so when it does not know what a share was made from", () => {
    assert.equal(checkOneUse([envelope({ uses: [] })]).unexplained.length, 1);
  });
});

describe("nodes that are killed while they sign and while their shares change", () => {
  it("never use anything twice, whatever the step, all change or none, and pay again afterwards", async () => {
    const report = await sweep({ ...NONE, nodes: 5, kills: 10, paymentsAtTheEnd: 1, schemes: ["frost", "cggmp24"] });
    console.log(`# ${JSON.stringify({ ...report, wire: { ...report.wire, reuses: report.wire.reuses.length } })}`);
    assert.deepEqual(report.violations, []);
    assert.deepEqual(report.wire.reuses, []);
    assert.deepEqual(report.wire.unexplained, []);
    assert.deepEqual(report.wire.strayed, []);
    assert.ok(report.wire.shares > 0);
    assert.equal(report.paidAtTheEnd, 2);
    assert.ok(Object.values(report.kills).reduce((sum, count) => sum + count, 0) >= 10);
    assert.ok(
      CHANGE_POINTS.some((point) => (report.kills[point] ?? 0) > 0),
      "some died while shares changed",
    );
    const refreshed = report.changes["frost: switched"] ?? 0;
    assert.ok(refreshed >= 1);
    assert.ok(report.wire.keys >= 2 + refreshed, "two wallets signed, and again after each refresh");
    assert.equal(report.attacks["accepted"], undefined);
  });

  it("would be caught if their ledgers forgot", async () => {
    const report = await sweep({
      ...NONE,
      nodes: 3,
      kills: 0,
      paymentsAtTheEnd: 3,
      schemes: ["cggmp24"],
      forgetful: true,
    });
    assert.ok(report.wire.reuses.length > 0, JSON.stringify(report));
  });
});
