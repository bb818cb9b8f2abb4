import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { Random } from "../crypto/ambient.js";
import type { PartyId } from "./party.js";

/**
 * One kind of message of a protocol. Rounds of one step are sent together; an envelope of step k carries the echo of
 * all broadcasts of steps below k, so a party may send step k only after it has received every round before it.
 */
export interface Round<M extends DescMessage = DescMessage> {
  /** Unique in the protocol, ASCII, at most 32 characters. */
  readonly id: string;
  /** The paper's round number, from 1. */
  readonly step: number;
  readonly message: M;
  readonly delivery: "broadcast" | "direct";
  /** Largest payload; anything longer is refused before it is parsed. */
  readonly maxBytes: number;
  /**
   * Lengths and counts that every honest message has, given the public parameters that the session digest binds; pure
   * and total. What fails here is "malformed", and that is evidence.
   */
  wellFormed(message: MessageShape<M>, shape: Shape): boolean;
}

/** Sizes that well-formedness may depend on. */
export interface Shape {
  readonly parties: number;
  readonly threshold: number;
  /** Number of messages signed at once; 1 where a protocol signs nothing. */
  readonly batch: number;
}

/** What a check reads: messages of the accused, the accuser, or everyone, in one round. */
export interface Need {
  readonly round: Round;
  readonly from: "accused" | "accuser" | "everyone";
}

/** The messages that a check's needs declare; asking for anything else is a bug. */
export interface View {
  /** The accused's message: its broadcast, or its direct message to the accuser. */
  accused<M extends DescMessage>(round: Round<M>): MessageShape<M>;
  /** The accuser's broadcast. */
  accuser<M extends DescMessage>(round: Round<M>): MessageShape<M>;
  /** The broadcasts of all parties. */
  everyone<M extends DescMessage>(round: Round<M>): ReadonlyMap<PartyId, MessageShape<M>>;
}

/** What a check may know beside the messages; equal for the live party and for a judge. */
export interface Facts<Pub> {
  readonly pub: Pub;
  readonly ssid: Uint8Array;
  readonly parties: readonly PartyId[];
  readonly accused: PartyId;
  readonly accuser: PartyId;
}

/**
 * One verification, written once: the live party and a judge run the same function. It is total, and reads only what
 * `needs` declares. The first need is the accused's envelope that a failure convicts.
 */
export interface Check<Pub> {
  readonly id: string;
  readonly needs: readonly [Need, ...Need[]];
  holds(facts: Facts<Pub>, view: View): boolean;
}

export interface Send {
  readonly kind: "send";
  readonly round: Round;
  /** Called once for a broadcast (with 0), once for each other party for a direct round. */
  readonly compose: (to: PartyId | 0) => unknown;
}
export interface Receive {
  readonly kind: "receive";
  readonly round: Round;
}
export interface Verify<Pub> {
  readonly kind: "verify";
  readonly checks: readonly Check<Pub>[];
}
export type Effect<Pub> = Send | Receive | Verify<Pub>;

/** A protocol under way: it yields effects and cannot await. */
export type Steps<Pub, Out> = Generator<Effect<Pub>, Out, unknown>;

/** What a protocol function is given. */
export interface Participant<Pub> {
  readonly self: PartyId;
  /** All parties of the session, ascending, self included. */
  readonly parties: readonly PartyId[];
  readonly others: readonly PartyId[];
  readonly pub: Pub;
  readonly ssid: Uint8Array;
  readonly random: Random;
}

/** A protocol: its rounds, its checks, and one function that reads like the paper's figure. */
export interface Protocol<Pub, Secret, Out> {
  /** Name with version, for example "keygen/1". Part of the session digest. */
  readonly name: string;
  readonly rounds: readonly Round[];
  readonly checks: readonly Check<Pub>[];
  readonly shape: (pub: Pub, parties: number) => Shape;
  /** Digest of all public parameters; part of the session digest. */
  readonly digest: (pub: Pub) => Uint8Array;
  readonly run: (participant: Participant<Pub>, secret: Secret) => Steps<Pub, Out>;
}

/** Sends one broadcast. */
export function* broadcast<M extends DescMessage>(round: Round<M>, message: MessageShape<M>): Generator<Send, void> {
  yield { kind: "send", round, compose: () => message };
}

/** Sends one message to each other party. */
export function* sendEach<M extends DescMessage>(
  round: Round<M>,
  compose: (to: PartyId) => MessageShape<M>,
): Generator<Send, void> {
  yield { kind: "send", round, compose: (to) => compose(to as PartyId) };
}

/** Waits for the round of every party. A broadcast round includes the own message, a direct round does not. */
export function* receive<M extends DescMessage>(
  round: Round<M>,
): Generator<Receive, ReadonlyMap<PartyId, MessageShape<M>>, unknown> {
  const messages = yield { kind: "receive", round };
  return messages as ReadonlyMap<PartyId, MessageShape<M>>;
}

/** Runs the checks against every other party; all culprits are collected, then the session aborts. */
export function* verify<Pub>(...checks: readonly Check<Pub>[]): Generator<Verify<Pub>, void> {
  yield { kind: "verify", checks };
}
