/**
 * A warm worker thread that runs protocol sessions, so that secrets of a session stay in the thread and heavy
 * arithmetic never blocks the event loop that serves peers. A thread that crashes takes its sessions with it; they
 * are never resumed.
 */
import type { KeyObject } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { Bug } from "../crypto/fault.js";
import { SessionDesk, type SessionOrder } from "./session-desk.js";
import { sessionDependencies } from "./session-job.js";

const port = parentPort;
if (port === null) throw new Bug("the session worker runs as a worker thread");
const { identity } = workerData as { readonly identity: KeyObject };
const desk = new SessionDesk(sessionDependencies(identity), (report) => port.postMessage(report));
port.on("message", (order: SessionOrder) => desk.order(order));
