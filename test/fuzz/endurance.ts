// 10,000 connection attempts, then 1,000 keep-alive cycles and 1,000 connections that come and go.
// `npm run fuzz -- endurance`; prints one JSON object for each.
import { floodConnections } from "../network/connection-flood.js";
import { connectAndClose, keepAlive } from "../network/endurance.js";

console.log(JSON.stringify({ flood: await floodConnections(10_000) }));
console.log(JSON.stringify({ keepAlive: await keepAlive(1_000) }));
console.log(JSON.stringify({ connectAndClose: await connectAndClose(1_000) }));
