import { security112 } from "../../src/crypto/security-profile.js";
import { partyId } from "../../src/session/party.js";
import { auxRun, generateKey, of } from "../protocols/cggmp24/ceremony.js";
import { auxInfo as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const key = of(generateKey([1, 3], 2, "aux cheats"), partyId(1));
const run = auxRun([1, 3], key, security112, "aux cheats");

describeScene({ name: "aux info of two", table, cheat: 3, run: () => run });
