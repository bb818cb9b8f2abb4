import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import type { PeerVerifier } from "../../src/network/peer-verifier.js";
import { CLOSE, type QuicConnection } from "../../src/network/quic-connection.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { QuicEndpoint } from "../../src/network/quic-endpoint.js";
import type { QuicStream, StreamLoss } from "../../src/network/quic-stream.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";

/** A stream on which any bytes may be written, and what came back. */
export class RawStream {
  readonly stream: QuicStream;
  readonly received: Buffer[] = [];
  /** The code of the peer's reset. */
  resetCode: number | undefined;
  /** The peer's FIN, its reset, or the end of the connection. */
  readonly over: Promise<void>;

  constructor(stream: QuicStream) {
    this.stream = stream;
    this.over = new Promise((resolve) => {
      stream.consumer = {
        received: (bytes) => void this.received.push(Buffer.from(bytes)),
        ended: () => resolve(),
        failed: (loss: StreamLoss) => {
          if (loss.kind === "reset") this.resetCode = loss.code;
          resolve();
        },
      };
    });
  }
}

/** A peer with a good certificate that speaks the protocol up to the hello, and from there whatever a test wants. */
export class HostilePeer {
  readonly connection: QuicConnection;
  readonly #endpoint: QuicEndpoint;
  readonly #dial: () => Promise<QuicConnection>;

  private constructor(endpoint: QuicEndpoint, dial: () => Promise<QuicConnection>, connection: QuicConnection) {
    this.#endpoint = endpoint;
    this.#dial = dial;
    this.connection = connection;
  }

  static async connect(options: {
    nodeId: string;
    credentials: TransportCredentials;
    verifier: PeerVerifier;
    to: { nodeId: string; port: number };
  }): Promise<HostilePeer> {
    const { nodeId, credentials, verifier, to } = options;
    // It bounds nothing on its own side.
    const callsPerClass = { control: 10_000, signing: 0, dkg: 0, presign: 0 };
    const limits = { ...DEFAULT_LIMITS, callsPerClass, sendBufferBytes: 2 ** 24 };
    let settle: { resolve(connection: QuicConnection): void; reject(fault: Error): void } | undefined;
    const events = {
      active: (connection: QuicConnection) => settle?.resolve(connection),
      stream: (stream: QuicStream) => stream.reset(12),
      silent: () => {},
      heard: () => {},
      closed: (_: QuicConnection, fault: Error) => settle?.reject(fault),
    };
    const listen = { host: "127.0.0.1", port: 0 };
    const endpoint = await QuicEndpoint.start(
      { nodeId, listen, credentials, limits },
      { clock: systemClock, random: systemRandom, verifier, events },
    );
    const dial = () =>
      new Promise<QuicConnection>((resolve, reject) => {
        settle = { resolve, reject };
        endpoint.dial({ ...to, host: "127.0.0.1" }).catch(reject);
      });
    return new HostilePeer(endpoint, dial, await dial());
  }

  /** A second connection of the same life, which stands beside the first. */
  async another(): Promise<HostilePeer> {
    return new HostilePeer(this.#endpoint, this.#dial, await this.#dial());
  }

  async open(): Promise<RawStream> {
    return new RawStream(await this.connection.openStream("control"));
  }

  close(): Promise<void> {
    return this.#endpoint.close(CLOSE.done, "enough");
  }
}
