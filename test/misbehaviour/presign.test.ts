import { pair } from "../protocols/cggmp24/presign-liars.js";
import { presign as table } from "./expectations.js";
import { describeScene } from "./scene.js";

describeScene({ name: "presigning by two of 2-of-3", table, cheat: 3, run: () => pair });
