import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, it } from "node:test";

const src = resolve("src");

/** Rank of each folder below src/; a file imports only from its own rank's folder or from lower ranks. */
const RANK: Readonly<Record<string, number>> = {
  crypto: 1,
  session: 2,
  protocols: 3,
  consensus: 4,
  wallet: 5,
  network: 6,
  storage: 6,
  gateway: 7,
  node: 8,
  coordinator: 8,
  devnet: 9,
  cli: 10,
};

/** Folders that may be imported beyond the downward rule, and folders that see less than their rank allows. */
const ONLY: Readonly<Record<string, readonly string[]>> = {
  gateway: ["gateway", "wallet", "crypto"],
};

const DRAWERS = /(^|\/)(utils?|common|helpers?|misc|types|index)(\.ts$|\/)/;

interface Import {
  readonly file: string;
  readonly target: string;
}

function files(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name));
}

function imports(file: string): Import[] {
  const text = readFileSync(file, "utf8");
  const found = text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g);
  return [...found].map((match) => ({ file, target: resolve(dirname(file), match[1] ?? "") }));
}

const layerOf = (path: string): string => relative(src, path).split("/")[0] ?? "";

/** Returns why an import breaks the rule, or undefined when it is allowed. */
export function breach({ file, target }: Import): string | undefined {
  const from = layerOf(file);
  if (!target.startsWith(`${src}/`)) {
    const outside = relative(resolve("."), target).split("/")[0];
    return outside === "gen" || outside === "migrations" ? undefined : `imports ${outside} from outside src/`;
  }
  const to = layerOf(target);
  const [fromRank, toRank] = [RANK[from], RANK[to]];
  if (fromRank === undefined) return `folder ${from} has no layer`;
  if (toRank === undefined) return `folder ${to} has no layer`;
  const only = ONLY[from];
  if (only !== undefined && !only.includes(to)) return `${from} may import ${only.join(", ")} only, not ${to}`;
  if (from !== to && toRank >= fromRank && !(from === "coordinator" && to === "node")) {
    return `${from} (layer ${fromRank}) imports ${to} (layer ${toRank})`;
  }
  return undefined;
}

describe("layers", () => {
  it("imports go downward only", () => {
    const breaches = files(src)
      .flatMap(imports)
      .map((item) => ({ item, why: breach(item) }))
      .filter(({ why }) => why !== undefined)
      .map(({ item, why }) => `${relative(".", item.file)}: ${why}`);
    assert.deepEqual(breaches, []);
  });

  it("an upward import, a sideways import and a folder without a layer are breaches", () => {
    const from = (layer: string, target: string) =>
      breach({ file: join(src, layer, "a.ts"), target: join(src, target) });
    assert.match(from("crypto", "session/session.js") ?? "", /layer 1.*layer 2/);
    assert.match(from("network", "storage/key-store.js") ?? "", /network.*storage/);
    assert.match(from("gateway", "network/peer.js") ?? "", /only/);
    assert.match(from("drawer", "crypto/fault.js") ?? "", /no layer/);
    assert.equal(from("wallet", "crypto/fault.js"), undefined);
  });

  it("no clock, entropy or I/O of its own below the adapters", () => {
    const pure = ["crypto", "session", "protocols", "consensus", "wallet"].flatMap((layer) => files(join(src, layer)));
    const ambient =
      /\b(Date\.now|new Date\(\)|Math\.random|randomBytes\(|getRandomValues|setTimeout|setInterval|performance\.now)/;
    const offenders = pure.filter((file) => ambient.test(readFileSync(file, "utf8").replace(/^\s*(\*|\/\/).*$/gm, "")));
    assert.deepEqual(
      offenders.map((file) => relative(".", file)),
      [],
    );
  });

  it("no drawers", () => {
    assert.deepEqual(
      files(src)
        .map((file) => relative(src, file))
        .filter((file) => DRAWERS.test(file)),
      [],
    );
  });
});
