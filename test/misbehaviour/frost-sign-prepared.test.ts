import { Scalar } from "../../src/crypto/curve.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { partyId } from "../../src/session/party.js";
import { of } from "../protocols/cggmp24/ceremony.js";
import { generate, prepare, secretOf } from "../protocols/frost-ceremony.js";
import { SeededRandom } from "../session/simulation.js";
import { frostSignPrepared as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const ids = [1, 2, 3];
const seed = "prepared frost cheats";
const shares = generate(ids, 3, seed);
const prepared = prepare(shares, ids, 2, seed);
const random = new SeededRandom(seed);
const items = [0, 1].map((index) => ({
  message: random.bytes(32),
  bip32Tweak: Scalar.random(random),
  noncesId: of(new Map(of(prepared, partyId(1)).entries()), index).id,
}));
const authorization = random.bytes(32);

describeScene({
  name: "FROST signing with nonces made ahead, 3-of-3,",
  table,
  cheat: 3,
  run: () => ({
    protocol: frostSignPrepared,
    ids,
    pub: { key: of(shares, partyId(1)), items, authorization },
    secret: secretOf(shares, prepared, [0, 1]),
    seed,
  }),
});
