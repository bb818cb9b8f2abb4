import type {
  ConfigConstructor,
  CongestionControlAlgorithm,
  Connection,
  ConnectionConstructor,
  Shutdown,
} from "@matrixai/quic/native/types.js";
import { Unavailable } from "../crypto/fault.js";

/** A connection of quiche as its native binding exposes it. */
export type NativeConnection = Connection;

/** What the driver uses of the native binding of quiche 0.18. Packet headers are parsed by our own total parser. */
export interface QuicBinding {
  readonly PROTOCOL_VERSION: number;
  readonly CongestionControlAlgorithm: typeof CongestionControlAlgorithm;
  readonly Shutdown: typeof Shutdown;
  readonly Config: ConfigConstructor;
  readonly Connection: ConnectionConstructor;
  negotiateVersion(scid: Uint8Array, dcid: Uint8Array, out: Uint8Array): number;
  retry(
    scid: Uint8Array,
    dcid: Uint8Array,
    newScid: Uint8Array,
    token: Uint8Array,
    version: number,
    out: Uint8Array,
  ): number;
}

/** Platforms for which the package ships a compiled binding (package.json of @matrixai/quic, optionalDependencies). */
export const SUPPORTED_PLATFORMS: readonly string[] = ["linux-x64", "darwin-x64", "darwin-arm64", "win32-x64"];

/**
 * Loads the native binding. The import is dynamic so that a platform without it gets a sentence and not a stack trace
 * of a module loader.
 *
 * @throws {Unavailable} `quic-platform-unsupported`, naming this platform and the supported ones
 */
export async function loadQuicBinding(platform = `${process.platform}-${process.arch}`): Promise<QuicBinding> {
  if (!SUPPORTED_PLATFORMS.includes(platform)) throw unsupported(platform);
  try {
    const { default: binding } = await import("@matrixai/quic/native/quiche.js");
    return binding;
  } catch (cause) {
    throw unsupported(platform, cause);
  }
}

function unsupported(platform: string, cause?: unknown): Unavailable {
  const supported = SUPPORTED_PLATFORMS.join(", ");
  return new Unavailable(
    "quic-platform-unsupported",
    `no QUIC binding for ${platform}; nodes and coordinators run on: ${supported} (Linux needs glibc). ` +
      "Was the package installed with optional dependencies?",
    { platform, supported: SUPPORTED_PLATFORMS },
    cause,
  );
}
