// Every protocol that the product has, by name; `coverage.test.ts` holds the list against what `src/protocols` exports.
import { auxInfo } from "../../src/protocols/cggmp24/aux-info.js";
import { presign } from "../../src/protocols/cggmp24/presign.js";
import { refresh } from "../../src/protocols/cggmp24/refresh.js";
import { reshare } from "../../src/protocols/cggmp24/reshare.js";
import { sign } from "../../src/protocols/cggmp24/sign.js";
import { prepareNonces } from "../../src/protocols/frost/prepare-nonces.js";
import { frostSign } from "../../src/protocols/frost/sign.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { keygen } from "../../src/protocols/keygen.js";
import type { Protocol } from "../../src/session/protocol.js";

type AnyProtocol = Protocol<never, never, unknown>;

export const protocols: readonly AnyProtocol[] = [
  keygen,
  frostSign,
  prepareNonces,
  frostSignPrepared,
  auxInfo,
  presign,
  sign,
  refresh,
  reshare,
] as readonly unknown[] as readonly AnyProtocol[];
