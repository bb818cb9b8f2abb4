import { createSocket, type Socket } from "node:dgram";

/** Direction of a datagram: `there` is from the dialling side to the one behind the proxy. */
export type Direction = "there" | "back";

/**
 * A wire between a dialling node and one that accepts, in the way of a NAT: the accepting side sees the proxy's own address.
 * It loses datagrams by a seeded sequence, so that a run can be repeated, records what passes, and can move to another address
 * or another server in the middle of a connection. One client at a time.
 */
export class UdpProxy {
  /** 0 to 100. */
  lossPercent = 0;
  /** Called with every datagram that is let through; the buffer may be kept. */
  onDatagram: ((direction: Direction, datagram: Buffer) => void) | undefined;
  /** Holds what goes back and lets it through in bursts, so many milliseconds apart; 0 is at once. */
  burstMs = 0;
  /** Drops everything, both ways. */
  cut = false;
  readonly port: number;
  #serverPort: number;
  readonly #near: Socket;
  #far: Socket;
  #clientPort = 0;
  #seed = 12_345;
  #held: Buffer[] = [];

  private constructor(near: Socket, far: Socket, serverPort: number) {
    this.#near = near;
    this.#far = far;
    this.#serverPort = serverPort;
    this.port = near.address().port;
    near.on("message", (datagram, { port }) => {
      this.#clientPort = port;
      if (this.#passes("there", datagram)) this.#far.send(datagram, this.#serverPort, "127.0.0.1");
    });
    this.#listen();
  }

  static async start(serverPort: number): Promise<UdpProxy> {
    return new UdpProxy(await bound("127.0.0.1"), await bound("127.0.0.1"), serverPort);
  }

  /** Where the accepting side sees the client from now. */
  get outsidePort(): number {
    return this.#far.address().port;
  }

  /** From now on the accepting side sees the client at another port of `host`; what is sent to the old one is lost. */
  async rebind(host = "127.0.0.1"): Promise<void> {
    const far = await bound(host);
    this.#far.close();
    this.#far = far;
    this.#listen();
  }

  /** From now on the client's datagrams reach another server. */
  redirect(serverPort: number): void {
    this.#serverPort = serverPort;
  }

  /** Sends the accepting side a datagram that seems to be the client's. */
  inject(datagram: Uint8Array): void {
    this.#far.send(datagram, this.#serverPort, "127.0.0.1");
  }

  close(): void {
    this.#near.close();
    this.#far.close();
  }

  #listen(): void {
    this.#far.on("message", (datagram) => {
      if (!this.#passes("back", datagram)) return;
      if (this.burstMs === 0) this.#near.send(datagram, this.#clientPort, "127.0.0.1");
      else if (this.#held.push(datagram) === 1) setTimeout(() => this.#release(), this.burstMs);
    });
  }

  #release(): void {
    for (const datagram of this.#held.splice(0)) this.#near.send(datagram, this.#clientPort, "127.0.0.1");
  }

  #passes(direction: Direction, datagram: Buffer): boolean {
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    if (this.cut || (this.#seed >>> 8) % 100 < this.lossPercent) return false;
    this.onDatagram?.(direction, datagram);
    return true;
  }
}

async function bound(host: string): Promise<Socket> {
  const socket = createSocket("udp4").unref();
  await new Promise<void>((resolve) => socket.bind(0, host, resolve));
  return socket;
}
