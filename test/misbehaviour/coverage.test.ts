import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { cheatsOf, pathsOf } from "./cheats.js";
import { NOBODY, tables } from "./expectations.js";
import { protocols } from "./protocols.js";

interface ProtocolLike {
  readonly name: string;
}

function isProtocol(value: unknown): value is ProtocolLike {
  if (typeof value !== "object" || value === null) return false;
  return ["name", "rounds", "checks", "digest", "run"].every((key) => key in value);
}

/** The names of all protocols that a module under `src/protocols` exports. */
async function exportedProtocols(): Promise<readonly string[]> {
  const folder = join("dist", "src", "protocols");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
  const names = new Set<string>();
  for (const file of files) {
    const module = (await import(pathToFileURL(join(folder, file)).href)) as Record<string, unknown>;
    for (const value of Object.values(module)) if (isProtocol(value)) names.add(value.name);
  }
  return [...names].sort();
}

describe("one cheat for each field", () => {
  it("covers every protocol that exists", async () => {
    const exported = await exportedProtocols();
    assert.deepEqual(exported, protocols.map(({ name }) => name).sort());
    assert.deepEqual(exported, Object.keys(tables).sort());
  });

  for (const protocol of protocols) {
    it(`${protocol.name}: every field of every round, and nothing that is not there`, () => {
      const all = tables[protocol.name] ?? [];
      const named = new Set(all.flatMap((table) => Object.keys(table)));
      assert.deepEqual([...named].sort(), protocol.rounds.map(({ id }) => id).sort());
      for (const round of protocol.rounds) {
        for (const table of all) {
          const fields = table[round.id];
          if (fields === undefined) continue; // another path of the protocol has this round
          assert.deepEqual(Object.keys(fields).sort(), [...pathsOf(round.message)].sort(), round.id);
        }
      }
    });
    it(`${protocol.name}: every check convicts somebody, or is one that other tests reach`, () => {
      const reached = JSON.stringify(tables[protocol.name]);
      const elsewhere = new Set(reachedByWholeLies[protocol.name] ?? []);
      for (const { id } of protocol.checks) assert.equal(reached.includes(`"${id}"`), !elsewhere.has(id), id);
    });
  }

  it("somebody is named for every field but those whose value nobody can judge", () => {
    const found = Object.entries(tables).flatMap(([protocol, all]) =>
      all.flatMap((table) =>
        Object.entries(table).flatMap(([round, fields]) =>
          Object.entries(fields)
            .filter(([, named]) => JSON.stringify(named).includes(`"${NOBODY}"`))
            .map(([path]) => `${protocol} ${round} ${path}`),
        ),
      ),
    );
    assert.deepEqual(found.sort(), [...seenByNobody].sort());
  });

  it("finds the fields inside lists, proofs, points and scalars", () => {
    const presign = protocols.find(({ name }) => name === "cggmp24-presign/1");
    const round = presign?.rounds.find(({ id }) => id === "product-proofs");
    assert.ok(round !== undefined);
    assert.ok(pathsOf(round.message).includes("proofs[].entries[].maskFactor"));
    assert.ok(cheatsOf(round.message).length > 20);
    const last = cheatsOf(round.message).filter(({ what }) => what.endsWith("in the last entry"));
    assert.ok(last.some(({ path }) => path === "proofs[].entries[].maskFactor"));
  });
});

/** Nonce commitments alone: of another one nobody can tell that it is not its sender's. */
const seenByNobody = [
  "frost-nonces/1 nonces commitments[].hiding",
  "frost-nonces/1 nonces commitments[].binding",
  "frost-sign-prepared/1 shares shares[].commitments[].hiding",
  "frost-sign-prepared/1 shares shares[].commitments[].binding",
];

/** A change of one field alone fails another check first; a lie that is consistent reaches these. */
const reachedByWholeLies: Readonly<Record<string, readonly string[]>> = {
  "cggmp24-aux-info/1": ["aux-parameters", "aux-distinct-moduli"],
  "cggmp24-reshare/1": ["dealing-role"],
  "cggmp24-refresh/1": ["dealing-role", "aux-parameters", "aux-distinct-moduli"],
};
