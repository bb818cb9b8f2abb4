import { reshare } from "../../src/protocols/cggmp24/reshare.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { generateKey, of } from "../protocols/cggmp24/ceremony.js";
import { reshare as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const shares = generateKey([1, 2, 3], 2, "reshare cheats");

describeScene({
  name: "reshare from 2-of-3 to 3-of-3 with a new holder",
  table,
  cheat: 3,
  run: () => ({
    protocol: reshare,
    ids: [1, 2, 3, 4],
    pub: {
      key: of(shares, partyId(1)),
      dealers: [2, 3].map(partyId),
      holders: [1, 3, 4].map(partyId),
      threshold: 3,
    },
    secret: (party: PartyId) => shares.get(party),
    seed: "reshare cheats",
  }),
});
