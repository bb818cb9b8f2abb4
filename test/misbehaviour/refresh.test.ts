import { security112 } from "../../src/crypto/security-profile.js";
import { refresh } from "../../src/protocols/cggmp24/refresh.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { testPrimes } from "../fixtures/parties.js";
import { generateKey, of } from "../protocols/cggmp24/ceremony.js";
import { refresh as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const shares = generateKey([1, 3], 2, "refresh cheats");

describeScene({
  name: "refresh, 2-of-2,",
  table,
  cheat: 3,
  run: () => ({
    protocol: refresh,
    ids: [1, 3],
    pub: { profile: security112, key: of(shares, partyId(1)) },
    secret: (party: PartyId) => ({ share: of(shares, party), primes: testPrimes(security112, party) }),
    seed: "refresh cheats",
  }),
});
