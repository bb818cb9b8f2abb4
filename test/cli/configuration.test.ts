import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { parse } from "smol-toml";
import { z } from "zod";
import { btcText, feeRateSatPerKvb, satFromBtc, satFromText } from "../../src/cli/amount.js";
import { clientProfileSchema } from "../../src/cli/client-profile.js";
import { loadConfiguration, parseConfiguration } from "../../src/cli/configuration-file.js";
import { coordinatorConfigurationSchema } from "../../src/coordinator/configuration.js";
import { GATEWAY_LIMITS } from "../../src/gateway/gateway-server.js";
import { nodeConfigurationSchema } from "../../src/node/configuration.js";

const SCHEMAS = {
  node: nodeConfigurationSchema,
  coordinator: coordinatorConfigurationSchema,
  client: clientProfileSchema,
} as const;

/** Names of all keys of a schema, tables in tables joined with points. */
function keysOf(schema: unknown, prefix = ""): string[] {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault) {
    return keysOf(schema.unwrap(), prefix);
  }
  if (schema instanceof z.ZodPipe) return keysOf(schema.in, prefix);
  if (schema instanceof z.ZodArray) return keysOf(schema.element, prefix);
  if (!(schema instanceof z.ZodObject)) return [prefix];
  return Object.entries(schema.shape).flatMap(([key, inner]) =>
    keysOf(inner, prefix === "" ? key : `${prefix}.${key}`),
  );
}

function keysIn(value: unknown, prefix = ""): string[] {
  if (Array.isArray(value) && typeof value[0] === "object") return value.flatMap((one) => keysIn(one, prefix));
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [prefix];
  return Object.entries(value).flatMap(([key, inner]) => keysIn(inner, prefix === "" ? key : `${prefix}.${key}`));
}

describe("configuration files", () => {
  for (const [name, schemaOf] of Object.entries(SCHEMAS)) {
    it(`deploy/config/${name}.toml parses and has every key`, async () => {
      const file = `deploy/config/${name}.toml`;
      await loadConfiguration(file, schemaOf as typeof nodeConfigurationSchema);
      const text = readFileSync(file, "utf8");
      assert.deepEqual([...new Set(keysIn(parse(text)))].sort(), [...new Set(keysOf(schemaOf(".")))].sort());
    });
  }

  const minimal = `
[node]
id = "node-1"
[network]
listenPort = 1
[[network.roster]]
nodeId = "node-1"
role = "node"
host = "h"
port = 1
identityKey = "${"ab".repeat(32)}"
[[network.roster]]
nodeId = "c"
role = "coordinator"
host = "h"
port = 2
identityKey = "${"cd".repeat(32)}"
[security]
rootCertificateFile = "r"
intermediateCertificateFile = "i"
certificateFile = "c"
privateKeyFile = "/abs/k"
identityKeyFile = "../id"
[[security.authorities]]
name = "treasury"
publicKey = "${"ef".repeat(32)}"
[bitcoin]
network = "regtest"
esploraUrl = "http://localhost:3000"
`;
  const parsed = (text: string) =>
    parseConfiguration(text, { file: "node.toml", schema: nodeConfigurationSchema("/etc/mpc") });
  const refused = (text: string, expected: RegExp) =>
    assert.throws(
      () => parsed(text),
      (error: Error) => {
        assert.equal((error as { code?: string }).code, "configuration-invalid");
        assert.match(error.message, expected);
        return true;
      },
    );

  it("a short file is enough; paths are relative to it", () => {
    const { node, security, consensus, protocols, metrics } = parsed(minimal);
    assert.equal(node.dataFolder, "/etc/mpc/data");
    assert.equal(security.privateKeyFile, "/abs/k");
    assert.equal(security.identityKeyFile, "/etc/id");
    assert.equal(consensus.policy.maxPaymentSat, 2_100_000_000_000_000n);
    assert.equal(metrics, undefined);
    assert.deepEqual([protocols.frost.poolTarget, protocols.frost.poolMinimum], [0, 0]);
    assert.deepEqual([protocols.cggmp24.poolTarget, protocols.cggmp24.poolMinimum], [100, 20]);
    assert.equal(security.authorities[0]?.publicKey.length, 32);
  });

  it("a pool's minimum follows its target, unless it is named", () => {
    const section = (text: string) => parsed(`${minimal}[protocols.frost]\n${text}\n`).protocols.frost;
    assert.equal(section("poolTarget = 50").poolMinimum, 20);
    assert.equal(section("poolTarget = 5").poolMinimum, 5);
    assert.equal(section("poolTarget = 50\npoolMinimum = 1").poolMinimum, 1);
    refused(`${minimal}[protocols.frost]\npoolMinimum = 1\n`, /poolMinimum must not be above poolTarget/);
  });

  it("messages name file, key and what is allowed", () => {
    refused(`${minimal}[gatewy]\n`, /^node\.toml: the file has the unknown key 'gatewy'; allowed are node, network, /);
    refused(
      minimal.replace("listenPort = 1", "listenPort = 1\nlisten = 2"),
      /\[network\] has the unknown key 'listen'; allowed are listenHost, listenPort/,
    );
    refused(minimal.replace('host = "h"\nport = 2', 'hst = "h"\nport = 2'), /network\.roster\[1\]/);
    refused(minimal.replace('[node]\nid = "node-1"', ""), /node\.toml: node is missing/);
    refused(minimal.replace('id = "node-1"', 'id = "Node 1"'), /node\.id: must be one DNS label/);
    refused(minimal.replace("ab".repeat(32), "AB"), /network\.roster\[0\]\.identityKey: must be an Ed25519 public key/);
    refused(minimal.replace("listenPort = 1", "listenPort = 70000"), /network\.listenPort: .*65535/);
    refused(
      minimal.replace('esploraUrl = "http://localhost:3000"', ""),
      /bitcoin: needs esploraUrl or \[bitcoin\.coreRpc\]/,
    );
    refused(minimal.replace('network = "regtest"', 'network = "moon"'), /bitcoin\.network: .*mainnet.*regtest/);
    refused(`${minimal}[consensus.policy]\nmaxPaymentSat = 2_100_000_000_000_001\n`, /maxPaymentSat: must be 0 to/);
    refused(`${minimal}[protocols.frost]\npoolMinimum = 200\n`, /protocols\.frost: poolMinimum must not be above/);
    refused("[node\n", /node\.toml, line 1, column/);
    refused("a = 1\na = 2\n", /line 2/);
  });

  it("the gateway's limits have the same defaults in the configuration and in the code", () => {
    const text = readFileSync("deploy/config/coordinator.toml", "utf8").replace(/^\[gateway\.limits\]\n(.+\n)+/m, "");
    const { gateway } = parseConfiguration(text, { file: "c.toml", schema: coordinatorConfigurationSchema("/") });
    assert.deepEqual(gateway.limits, GATEWAY_LIMITS);
  });
});

describe("amounts on the command line", () => {
  it("BTC decimals are exact", () => {
    assert.equal(satFromBtc("1"), 100_000_000n);
    assert.equal(satFromBtc("0.1"), 10_000_000n);
    assert.equal(satFromBtc("0.00000001"), 1n);
    assert.equal(satFromBtc("21000000"), 2_100_000_000_000_000n);
    assert.equal(satFromBtc("20999999.97690000"), 2_099_999_997_690_000n);
    for (const text of [
      "",
      ".",
      "0",
      "0.000000001",
      "1.",
      ".5",
      "1,5",
      "1e-3",
      "-1",
      "+1",
      " 1",
      "0x1",
      "21000000.00000001",
      "١",
    ]) {
      assert.throws(() => satFromBtc(text), { code: "amount-invalid" }, text);
    }
  });

  it("satoshi and fee rates are whole numbers and short decimals", () => {
    assert.equal(satFromText("1"), 1n);
    assert.equal(satFromText("2100000000000000"), 2_100_000_000_000_000n);
    for (const text of ["", "0", "1.0", "1_0", "-1", "2100000000000001", "99999999999999999"]) {
      assert.throws(() => satFromText(text), { code: "amount-invalid" }, text);
    }
    assert.equal(feeRateSatPerKvb("1.5"), 1500n);
    assert.equal(feeRateSatPerKvb("12"), 12_000n);
    for (const text of ["0", "0.0", "1.2345", "", "a"])
      assert.throws(() => feeRateSatPerKvb(text), { code: "amount-invalid" });
    assert.equal(btcText(2_099_999_997_690_000n), "20999999.97690000 BTC");
    assert.equal(btcText(0n), "0.00000000 BTC");
  });
});
