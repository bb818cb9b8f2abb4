// Two hosts as network namespaces, joined twice: by a plain virtual Ethernet, and by one whose frames a process of ours
// carries, loses and delays. What loses them knows nothing of the protocol: UDP and TCP packets are hit alike.
//
// Needs Linux, root, `ip`, `unshare` and `nsenter`. A macvtap device can be read and written as a file, so no native code.
import { type ChildProcess, execFileSync, fork, type SpawnOptions, spawn } from "node:child_process";
import { openSync, read, readlinkSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Impairment {
  /** Of the packets of each direction. */
  readonly lossPercent: number;
  /** Of each packet, in each direction: the round trip takes twice as long. */
  readonly delayMs: number;
}

/** What the carrier saw since it was last asked. */
export interface Carried {
  readonly frames: number;
  readonly lost: number;
  /** Dropped because a thousand frames were on the way already. */
  readonly overflowed: number;
}

export const SERVER_ADDRESS = { plain: "10.99.1.2", impaired: "10.99.2.2" } as const;

/** Header that the kernel puts in front of each frame of a macvtap device, and expects back. */
const VNET_HEADER_BYTES = 10;
const ETHERNET_HEADER_BYTES = 14;
const MTU_BYTES = 1_500;
const MAX_FRAME_BYTES = 70_000;
/** As a router's queue; more is dropped. */
const MAX_FRAMES_ON_THE_WAY = 1_000;
const IPV4 = 0x0800;
const ARP = 0x0806;

/** The two hosts; they vanish with this process. */
export class ImpairedLink {
  readonly #hosts: Readonly<Record<"client" | "server" | "middle", ChildProcess>>;
  readonly #carrier: ChildProcess;

  private constructor(hosts: Record<"client" | "server" | "middle", ChildProcess>, carrier: ChildProcess) {
    this.#hosts = hosts;
    this.#carrier = carrier;
  }

  /** @throws {Error} where namespaces or macvtap devices cannot be made; the message says what failed */
  static async create(): Promise<ImpairedLink> {
    const [client, server, middle] = await Promise.all([namespace(), namespace(), namespace()]);
    // Not two benches at once on one device: /dev knows no namespaces.
    const firstIndex = 100_000 + 2 * process.pid;
    const taps = [firstIndex, firstIndex + 1] as const;
    const inside = (host: ChildProcess, script: string) =>
      execFileSync("nsenter", ["--net", "--target", String(host.pid), "sh", "-ec", script], { stdio: "pipe" });
    inside(
      middle,
      `ip link add toward-c type veth peer name eth1 netns ${client.pid}
       ip link add toward-s type veth peer name eth1 netns ${server.pid}
       ip link add link toward-c name tap-c index ${taps[0]} type macvtap mode passthru
       ip link add link toward-s name tap-s index ${taps[1]} type macvtap mode passthru
       for each in toward-c toward-s tap-c tap-s; do ip link set $each up; done`,
    );
    inside(client, `ip link add eth0 type veth peer name eth0 netns ${server.pid}`);
    for (const [host, at] of [
      [client, 1],
      [server, 2],
    ] as const) {
      // Without this TCP hands over packets of 64 KB, and one lost frame would be forty lost packets.
      inside(
        host,
        `ip link set eth1 gso_max_segs 1
         ip addr add 10.99.1.${at}/24 dev eth0
         ip addr add 10.99.2.${at}/24 dev eth1
         for each in lo eth0 eth1; do ip link set $each up; done`,
      );
    }
    const carrier = fork(fileURLToPath(import.meta.url), ["--carry", ...taps.map((index) => `/dev/tap${index}`)]);
    const link = new ImpairedLink({ client, server, middle }, carrier);
    await link.set({ lossPercent: 0, delayMs: 0 });
    return link;
  }

  /** Changes the wire; resolves with what it carried before. */
  set(impairment: Impairment): Promise<Carried> {
    return new Promise((resolve, reject) => {
      const gone = () => reject(new Error("the process that carries the frames ended"));
      this.#carrier.once("exit", gone);
      this.#carrier.once("message", (carried) => {
        this.#carrier.off("exit", gone);
        resolve(carried as Carried);
      });
      this.#carrier.send(impairment);
    });
  }

  /** Starts a Node program on one of the hosts, with an IPC channel. */
  fork(host: "client" | "server", program: string): ChildProcess {
    const options: SpawnOptions = { stdio: ["ignore", "inherit", "inherit", "ipc"] };
    const target = String(this.#hosts[host].pid);
    return spawn("nsenter", ["--net", "--target", target, process.execPath, program], options);
  }

  close(): void {
    this.#carrier.kill("SIGKILL");
    for (const host of Object.values(this.#hosts)) host.kill("SIGKILL");
  }
}

/** A process in a new network namespace that ends when our end of its pipe closes. */
async function namespace(): Promise<ChildProcess> {
  const holder = spawn("unshare", ["--net", "cat"], { stdio: ["pipe", "ignore", "pipe"] });
  const failure = new Promise<never>((_, reject) => {
    let said = "";
    holder.stderr?.on("data", (text) => {
      said += text;
    });
    holder.once("error", reject);
    holder.once("exit", () => reject(new Error(said.trim() || "a namespace ended")));
  });
  failure.catch(() => {});
  const own = readlinkSync("/proc/self/ns/net");
  for (;;) {
    await Promise.race([failure, new Promise((resolve) => setTimeout(resolve, 5))]);
    if (holder.pid !== undefined && readlinkSync(`/proc/${holder.pid}/ns/net`) !== own) return holder;
  }
}

// ---- the process that carries the frames

function carry(devices: readonly string[]): void {
  let wire: Impairment = { lossPercent: 0, delayMs: 0 };
  let seen = { frames: 0, lost: 0, overflowed: 0 };
  const files = devices.map((device) => openSync(device, "r+"));
  files.forEach((from, index) => {
    const to = files[1 - index] ?? from;
    const arrived = Buffer.allocUnsafeSlow(MAX_FRAME_BYTES);
    const random = sequence(index + 1);
    const onTheWay: { dueMs: number; frame: Buffer }[] = [];
    let timer: NodeJS.Timeout | undefined;
    const deliver = () => {
      timer = undefined;
      const nowMs = performance.now();
      while (onTheWay[0] !== undefined && onTheWay[0].dueMs <= nowMs) writeSync(to, onTheWay.shift()?.frame ?? arrived);
      if (onTheWay[0] !== undefined) timer = setTimeout(deliver, onTheWay[0].dueMs - nowMs);
    };
    const take = (frame: Buffer) => {
      const kind = frame.readUInt16BE(VNET_HEADER_BYTES + 12);
      if (kind === ARP) {
        writeSync(to, frame);
        return;
      }
      if (kind !== IPV4) return;
      const packetBytes = frame.length - VNET_HEADER_BYTES - ETHERNET_HEADER_BYTES;
      if (packetBytes > MTU_BYTES) throw new Error(`a packet of ${packetBytes} bytes would be lost as one`);
      seen.frames += 1;
      if (random() * 100 < wire.lossPercent) seen.lost += 1;
      else if (onTheWay.length >= MAX_FRAMES_ON_THE_WAY) seen.overflowed += 1;
      else {
        onTheWay.push({ dueMs: performance.now() + wire.delayMs, frame: Buffer.from(frame) });
        if (timer === undefined) deliver();
      }
    };
    const next = () => {
      read(from, arrived, 0, MAX_FRAME_BYTES, null, (error, length) => {
        if (error !== null) throw error;
        take(arrived.subarray(0, length));
        next();
      });
    };
    next();
  });
  process.on("message", (impairment: Impairment) => {
    wire = impairment;
    process.send?.(seen);
    seen = { frames: 0, lost: 0, overflowed: 0 };
  });
  process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));
}

/** xorshift32, so that two runs lose by the same dice: 0 to 1. */
function sequence(seed: number): () => number {
  let state = Math.imul(seed, 0x9e37_79b1);
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

if (process.argv[2] === "--carry") carry(process.argv.slice(3));
