import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { after, describe, it } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { Unavailable } from "../../src/crypto/fault.js";
import { loadQuicBinding, type NativeConnection } from "../../src/network/quic-binding.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";
import {
  closeAll,
  control,
  eventually,
  startNode,
  startPair,
  statusOf,
  type TestNode,
  type TestNodeOptions,
} from "./test-mesh.js";

const LOOPBACK = "127.0.0.1";

/** "node-a" dials "node-b"; each may be started with something wrong. Returns what both sides say about it. */
async function refusal(
  wrong: { a?: Partial<TestNodeOptions>; b?: Partial<TestNodeOptions> },
  authority: TestAuthority,
): Promise<{ atA: string; atB: string }> {
  const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }], ...wrong.b });
  const a = await startNode({
    nodeId: "node-a",
    authority,
    peers: [{ nodeId: "node-b", host: LOOPBACK, port: b.mesh.port }],
    ...wrong.a,
  });
  const why = (node: TestNode) =>
    node.events.filter(({ event }) => event === "connection-closed").map(({ facts }) => String(facts["why"]))[0];
  assert.ok(await eventually(() => why(a) !== undefined && why(b) !== undefined), "both sides give a reason");
  const peers: [TestNode, string][] = [
    [a, "node-b"],
    [b, "node-a"],
  ];
  for (const [node, peer] of peers) {
    assert.equal(node.mesh.status().find(({ nodeId }) => nodeId === peer)?.connections ?? 0, 0);
  }
  await assert.rejects(
    control(a, a.mesh.status()[0]?.nodeId ?? "").ping({}, { timeoutMs: 300 }),
    (error) => error instanceof ConnectError && [Code.Unavailable, Code.DeadlineExceeded].includes(error.code),
  );
  await Promise.all([a.mesh.close(), b.mesh.close()]);
  return { atA: why(a) ?? "", atB: why(b) ?? "" };
}

after(closeAll);

describe("certificates", () => {
  it("an expired certificate is refused, dialling or accepting", async () => {
    const authority = await TestAuthority.create("expired");
    const a = { credentials: await authority.issue("node-a", { expired: true }) };
    const b = { credentials: await authority.issue("node-b", { expired: true }) };
    const client = await refusal({ a }, authority);
    assert.match(client.atA, /expired/);
    assert.match(client.atB, /expired/);
    const server = await refusal({ b }, authority);
    assert.match(server.atA, /expired/);
    assert.match(server.atB, /expired/);
  });

  it("a certificate of another authority is refused, dialling or accepting", async () => {
    const authority = await TestAuthority.create("ours");
    const other = await TestAuthority.create("theirs");
    const a = { credentials: await other.issue("node-a") };
    const b = { credentials: await other.issue("node-b") };
    for (const wrong of [{ a }, { b }]) {
      const { atA, atB } = await refusal(wrong, authority);
      assert.match(atA, /not issued by our authority/);
      assert.match(atB, /not issued by our authority/);
    }
  });

  it("a server with the certificate of another node is refused", async () => {
    const authority = await TestAuthority.create("names");
    const { atA, atB } = await refusal({ b: { credentials: await authority.issue("node-c") } }, authority);
    assert.match(atA, /node-c, expected node-b/);
    assert.match(atB, /node-c, expected node-b/);
  });

  it("a client that is in nobody's list of peers is refused", async () => {
    const authority = await TestAuthority.create("strangers");
    const { atA, atB } = await refusal({ b: { peers: [{ nodeId: "node-z" }] } }, authority);
    assert.match(atA, /node-a is not a peer of node-b/);
    assert.match(atB, /node-a is not a peer of node-b/);
  });

  it("a hello of another node than the certificate's is refused", async () => {
    const authority = await TestAuthority.create("hello");
    const { atA, atB } = await refusal(
      { a: { credentials: await authority.issue("node-c") }, b: { peers: [{ nodeId: "node-c" }] } },
      authority,
    );
    assert.match(atA, /hello of another node/);
    assert.match(atB, /hello of another node/);
  });

  it("a verifier that throws refuses the peer and harms nobody", async () => {
    const authority = await TestAuthority.create("defect");
    const verifier = () => {
      throw new TypeError("a defect");
    };
    const { atA, atB } = await refusal({ b: { verifier } }, authority);
    assert.match(atA, /could not be checked/);
    assert.match(atB, /could not be checked/);
  });

  it("a client without a certificate is refused", async () => {
    const authority = await TestAuthority.create("naked");
    const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }] });
    const client = await RawClient.start(b.mesh.port);
    assert.ok(await eventually(() => client.closeCode !== undefined));
    assert.equal(client.closeCode, 372, "TLS alert certificate_required");
    assert.ok(
      await eventually(() =>
        b.events.some(({ event, facts }) => event === "connection-closed" && facts["why"] === "certificate required"),
      ),
      JSON.stringify(b.events),
    );
    assert.equal(statusOf(b, "node-a").connections, 0);
    client.close();
    await b.mesh.close();
  });

  it("credentials change while calls run: no call fails, and the next connection shows the new certificate", async () => {
    const authority = await TestAuthority.create("swap");
    const leaves = new Set<string>();
    const inner = testVerifier(authority.rootDer);
    const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }] });
    const toB = { nodeId: "node-b", host: LOOPBACK, port: b.mesh.port };
    const a = await startNode({
      nodeId: "node-a",
      authority,
      peers: [toB],
      verifier: (chain, expected) => {
        leaves.add(Buffer.from(chain[0] ?? []).toString("hex"));
        return inner(chain, expected);
      },
    });
    await a.mesh.ready(["node-b"], 5_000);
    let calls = 0;
    let stop = false;
    const client = control(a, "node-b");
    const caller = async () => {
      for (; !stop; calls++) await client.ping({ payload: new Uint8Array(100) }, { timeoutMs: 5_000 });
    };
    const callers = Promise.all(Array.from({ length: 10 }, caller));
    for (let swap = 0; swap < 5; swap++) {
      b.mesh.useCredentials(await authority.issue("node-b"));
      a.mesh.useCredentials(await authority.issue("node-a"));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    stop = true;
    await callers;
    assert.ok(calls > 50, `${calls} calls, none failed`);
    assert.equal(statusOf(a, "node-b").connections, 1, "the live connection stayed");
    a.mesh.removePeer("node-b");
    a.mesh.addPeer(toB);
    await a.mesh.ready(["node-b"], 5_000);
    assert.equal(leaves.size, 2, "two different certificates of node-b were seen");
    assert.throws(() => a.mesh.useCredentials({ certificateChainPem: "x", privateKeyPem: "y" }), /does not load/);
    await control(a, "node-b").ping({}, { timeoutMs: 5_000 });
    await Promise.all([a.mesh.close(), b.mesh.close()]);
  });
});

/** A QUIC client without certificate, straight on the binding. */
class RawClient {
  readonly #native: NativeConnection;
  readonly #socket: Socket;
  closeCode: number | undefined;

  private constructor(native: NativeConnection, socket: Socket) {
    this.#native = native;
    this.#socket = socket;
  }

  static async start(port: number): Promise<RawClient> {
    const binding = await loadQuicBinding();
    const socket = createSocket("udp4").unref();
    await new Promise<void>((resolve) => socket.bind(0, LOOPBACK, resolve));
    const local = { host: LOOPBACK, port: socket.address().port };
    const remote = { host: LOOPBACK, port };
    const config = binding.Config.withBoringSslCtx(false, true);
    config.setApplicationProtos(["mpc-wallet/1"]);
    config.setMaxIdleTimeout(5_000);
    config.setMaxSendUdpPayloadSize(1_350);
    const native = binding.Connection.connect(null, randomBytes(16), local, remote, config);
    const client = new RawClient(native, socket);
    socket.on("message", (datagram) => {
      native.recv(datagram, { from: remote, to: local });
      client.closeCode = native.peerError()?.errorCode;
      client.flush();
    });
    client.flush();
    return client;
  }

  flush(): void {
    for (let sent = 0; sent < 100; sent++) {
      const buffer = Buffer.alloc(1_350);
      const packet = this.#native.send(buffer);
      if (packet === null) return;
      this.#socket.send(buffer.subarray(0, packet[0]), packet[1].to.port, packet[1].to.host);
    }
  }

  close(): void {
    this.#socket.close();
  }
}

/** The first datagram of a client that speaks the right version. */
async function initialDatagram(port: number): Promise<Buffer> {
  const binding = await loadQuicBinding();
  const config = binding.Config.withBoringSslCtx(false, true);
  config.setApplicationProtos(["mpc-wallet/1"]);
  const native = binding.Connection.connect(
    null,
    randomBytes(16),
    { host: LOOPBACK, port: 9 },
    { host: LOOPBACK, port },
    config,
  );
  const buffer = Buffer.alloc(1_350);
  const packet = native.send(buffer);
  assert.ok(packet !== null);
  return buffer.subarray(0, packet[0]);
}

/** Long header with the given type bits: first byte, version 1, ids, rest. */
function longHeader(type: number, lengthBytes: number): Buffer {
  const datagram = randomBytes(lengthBytes);
  datagram[0] = 0xc0 | (type << 4);
  datagram.writeUInt32BE(1, 1);
  datagram[5] = 16;
  datagram[22] = 16;
  return datagram;
}

class Attacker {
  readonly #port: number;
  readonly #socket = createSocket("udp4").unref();
  received = 0;

  constructor(port: number) {
    this.#port = port;
    this.#socket.on("message", () => {
      this.received += 1;
    });
  }

  send(datagram: Uint8Array): void {
    this.#socket.send(datagram, this.#port, LOOPBACK);
  }

  close(): void {
    this.#socket.close();
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("hostile datagrams", () => {
  it("one 60-byte 0-RTT datagram, which ends a process that uses the package's own path, is ignored", async () => {
    const pair = await startPair();
    const attacker = new Attacker(pair.b.mesh.port);
    for (const lengthBytes of [60, 1_200]) attacker.send(longHeader(1, lengthBytes));
    for (const type of [0, 2, 3]) attacker.send(longHeader(type, 60));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const answer = await control(pair.a, "node-b").ping({ payload: new Uint8Array(9) }, { timeoutMs: 5_000 });
    assert.equal(answer.payload.length, 9);
    assert.equal(attacker.received, 0);
    attacker.close();
    await pair.close();
  });

  it("100,000 random packets: calls work during and after, and a new peer can connect", async () => {
    const pair = await startPair();
    const client = control(pair.a, "node-b");
    const attacker = new Attacker(pair.b.mesh.port);
    const noise = randomBytes(200_000);
    let flooding = true;
    let calls = 0;
    const caller = (async () => {
      for (; flooding; calls++) await client.ping({ payload: new Uint8Array(64) }, { timeoutMs: 10_000 });
    })();
    for (let sent = 0; sent < 100_000; sent++) {
      const at = (sent * 7_919) % 190_000;
      const datagram = noise.subarray(at, at + 1 + ((sent * 31) % 1_400));
      // Every fourth claims to be of version 1 with ids of a right length, to get further into the code.
      if (sent % 4 === 0 && datagram.length > 40) {
        datagram[0] = 0xc0 | ((datagram[0] ?? 0) & 0x3f);
        datagram.writeUInt32BE(1, 1);
        datagram[5] = sent % 21;
        datagram[6 + (sent % 21)] = sent % 19;
      }
      attacker.send(datagram);
      if (sent % 20 === 0) await turn();
    }
    flooding = false;
    await caller;
    assert.ok(calls > 20, `${calls} calls were answered during the flood`);
    assert.equal((await client.ping({ payload: new Uint8Array(5) }, { timeoutMs: 5_000 })).payload.length, 5);
    assert.equal(statusOf(pair.a, "node-b").connections, 1);
    pair.a.mesh.removePeer("node-b");
    pair.a.mesh.addPeer({ nodeId: "node-b", host: LOOPBACK, port: pair.b.mesh.port });
    await pair.a.mesh.ready(["node-b"], 10_000);
    attacker.close();
    await pair.close();
  });

  it("Initials without a token cost no connection and are answered within the budget only", async () => {
    const authority = await TestAuthority.create("flood");
    const limits = { strangerPacketsPerSecond: 50 };
    const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }], limits });
    const attacker = new Attacker(b.mesh.port);
    const initial = await initialDatagram(b.mesh.port);
    for (let sent = 0; sent < 500; sent++) {
      attacker.send(initial);
      if (sent % 20 === 0) await turn();
    }
    assert.ok(await eventually(() => attacker.received >= 50));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(attacker.received < 150, `${attacker.received} answers`);
    assert.equal(b.events.length, 0, "no connection was made and lost");
    // The same datagram cut below 1,200 bytes, with damaged tokens and damaged versions.
    for (let cut = 0; cut < 1_200; cut += 7) attacker.send(initial.subarray(0, cut));
    for (let at = 0; at < 60; at++) {
      const damaged = Buffer.from(initial);
      damaged[at] = (damaged[at] ?? 0) ^ 0xff;
      attacker.send(damaged);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    const a = await startNode({
      nodeId: "node-a",
      authority,
      peers: [{ nodeId: "node-b", host: LOOPBACK, port: b.mesh.port }],
    });
    await a.mesh.ready(["node-b"], 10_000);
    attacker.close();
    await Promise.all([a.mesh.close(), b.mesh.close()]);
  });

  it("another version is told which ones are spoken", async () => {
    const authority = await TestAuthority.create("versions");
    const b = await startNode({ nodeId: "node-b", authority, peers: [] });
    const attacker = new Attacker(b.mesh.port);
    const initial = await initialDatagram(b.mesh.port);
    initial.writeUInt32BE(0x1a2a3a4a, 1);
    attacker.send(initial);
    assert.ok(await eventually(() => attacker.received === 1));
    attacker.close();
    await b.mesh.close();
  });

  it("half-open connections are capped", async () => {
    const authority = await TestAuthority.create("half-open");
    const limits = { halfOpen: 3, connectTimeoutMs: 1_500 };
    const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }], limits });
    // Clients without a certificate that fall silent after their token: each holds a half-open connection.
    const silent = await Promise.all(Array.from({ length: 8 }, () => SilentClient.start(b.mesh.port)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(silent.filter(({ answered }) => answered).length, 3);
    const a = await startNode({
      nodeId: "node-a",
      authority,
      peers: [{ nodeId: "node-b", host: LOOPBACK, port: b.mesh.port }],
    });
    // The places are free again after the connect timeout.
    await a.mesh.ready(["node-b"], 10_000);
    for (const client of silent) client.close();
    await Promise.all([a.mesh.close(), b.mesh.close()]);
  });
});

/** Answers Retry and then reads nothing more. */
class SilentClient {
  readonly #socket: Socket;
  answered = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async start(port: number): Promise<SilentClient> {
    const binding = await loadQuicBinding();
    const socket = createSocket("udp4").unref();
    await new Promise<void>((resolve) => socket.bind(0, LOOPBACK, resolve));
    const local = { host: LOOPBACK, port: socket.address().port };
    const remote = { host: LOOPBACK, port };
    const config = binding.Config.withBoringSslCtx(false, true);
    config.setApplicationProtos(["mpc-wallet/1"]);
    const native = binding.Connection.connect(null, randomBytes(16), local, remote, config);
    const client = new SilentClient(socket);
    const send = () => {
      const buffer = Buffer.alloc(1_350);
      const packet = native.send(buffer);
      if (packet !== null) socket.send(buffer.subarray(0, packet[0]), port, LOOPBACK);
    };
    let datagrams = 0;
    socket.on("message", (datagram) => {
      datagrams += 1;
      if (datagrams > 1) client.answered = true;
      else {
        native.recv(datagram, { from: remote, to: local });
        send();
      }
    });
    send();
    return client;
  }

  close(): void {
    this.#socket.close();
  }
}

describe("platforms", () => {
  it("a platform without the binding is told which ones there are", async () => {
    await assert.rejects(loadQuicBinding("sunos-sparc"), (error) => {
      assert.ok(error instanceof Unavailable);
      assert.equal(error.code, "quic-platform-unsupported");
      assert.match(error.message, /sunos-sparc.*linux-x64.*darwin-arm64/);
      return true;
    });
  });
});
