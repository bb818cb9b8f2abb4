import { Scalar } from "../../src/crypto/curve.js";
import { frostSign } from "../../src/protocols/frost/sign.js";
import { keygen } from "../../src/protocols/keygen.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { of } from "../protocols/cggmp24/ceremony.js";
import { outputs, SeededRandom, simulate } from "../session/simulation.js";
import { frostSign as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const ids = [1, 2, 3];
const pub = { scheme: "frost" as const, threshold: 3, walletId: "wallet" };
const shares = outputs(simulate({ protocol: keygen, ids, pub, secret: () => undefined, seed: "frost cheats" }));
const random = new SeededRandom("frost cheats");
const items = [0, 1].map(() => ({ message: random.bytes(32), bip32Tweak: Scalar.random(random) }));
const authorization = random.bytes(32);

describeScene({
  name: "FROST signing, 3-of-3,",
  table,
  cheat: 3,
  // Who publishes a nonce commitment that is not its own cannot sign by itself: its cheat is the mismatch.
  asIfHonest: true,
  run: () => ({
    protocol: frostSign,
    ids,
    pub: { key: of(shares, partyId(1)), items, authorization },
    secret: (party: PartyId) => of(shares, party).secretShare,
    seed: "frost cheats",
  }),
});
