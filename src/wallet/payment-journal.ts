import { toBinary } from "@bufbuild/protobuf";
import { type ApprovalCertificate, ApprovalCertificateSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { type TransactionEvent, transition } from "../consensus/transaction-state.js";
import type { Clock } from "../crypto/ambient.js";
import { Bug } from "../crypto/fault.js";
import type { AuditTrail } from "./audit-trail.js";
import { needsKeeping } from "./op-return.js";
import { type PaymentRecord, TIMELINE_MAX } from "./payment-record.js";
import type { PaymentStore } from "./payment-store.js";
import { failureCode } from "./signing-attempt.js";

export interface JournalDependencies {
  readonly store: PaymentStore;
  readonly audit: AuditTrail;
  readonly clock: Clock;
  readonly onChange: (record: PaymentRecord) => void;
}

/** When a step began, on the wall and on the clock that never jumps. */
export interface Moment {
  readonly startedAtMs: number;
  readonly startedMonotonicMs: number;
}

/**
 * The memory of one payment: its record, what of it is stored and what is shown, its timeline, and its lines in the audit
 * trail. A transition is checked by the state machine, in the store before anybody sees it, and then in the trail.
 */
export class PaymentJournal {
  readonly #parts: JournalDependencies;
  readonly #metadataJson: string;
  #record: PaymentRecord;
  #writes: Promise<void> = Promise.resolve();
  #unwritten = false;
  /** Transitions made since the last one that was written. */
  readonly #unshown: { readonly event: TransactionEvent; readonly record: PaymentRecord }[] = [];

  constructor(
    payment: { readonly record: PaymentRecord; readonly metadataJson: string },
    dependencies: JournalDependencies,
  ) {
    this.#record = payment.record;
    this.#metadataJson = payment.metadataJson;
    this.#parts = dependencies;
  }

  get record(): PaymentRecord {
    return this.#record;
  }

  change(changes: Partial<PaymentRecord>): void {
    this.#record = { ...this.#record, ...changes };
    this.#unwritten = true;
  }

  /** One transition: checked, written, then shown. */
  async apply(event: TransactionEvent): Promise<void> {
    this.transit(event);
    const shown = this.#unshown.splice(0);
    await this.write();
    for (const { event: made, record } of shown) {
      this.#auditTransition(made, record);
      this.#parts.onChange(made === event ? this.#record : record);
    }
  }

  /** One transition that is written and shown with the next one. */
  transit(event: TransactionEvent): void {
    const result = transition(this.#record.state, event, this.#parts.clock.nowMs());
    if (!result.legal) throw new Bug(result.refusal.message, result.refusal.facts);
    this.change({ state: result.state });
    this.#unshown.push({ event, record: this.#record });
  }

  /** Writes go one after the other and only the newest record is written. */
  write(): Promise<void> {
    this.#writes = this.#writes
      .catch(() => undefined)
      .then(async () => {
        if (!this.#unwritten) return;
        this.#unwritten = false;
        this.#record = { ...this.#record, revision: this.#record.revision + 1n };
        await this.#parts.store.put(this.#record);
      });
    return this.#writes;
  }

  /** Shows the record as it is, written or not. */
  show(): void {
    this.#parts.onChange(this.#record);
  }

  // ── Timeline ────────────────────────────────────────────────────────────────────────────────────────────────────

  moment(): Moment {
    const { clock } = this.#parts;
    return { startedAtMs: clock.nowMs(), startedMonotonicMs: clock.monotonicMs() };
  }

  addStep(entry: PaymentRecord["timeline"][number]): void {
    if (this.#record.timeline.length < TIMELINE_MAX) this.change({ timeline: [...this.#record.timeline, entry] });
  }

  /** A step that has just ended. */
  note(step: string, nodeId: string, { startedAtMs, startedMonotonicMs }: Moment, outcome: string): void {
    const durationMs = this.#parts.clock.monotonicMs() - startedMonotonicMs;
    this.addStep({ step, nodeId, startedAtMs, durationMs, outcome });
  }

  async timed<T>(step: string, nodeId: string, task: () => Promise<T>): Promise<T> {
    const started = this.moment();
    try {
      const result = await task();
      this.note(step, nodeId, started, "ok");
      return result;
    } catch (error) {
      this.note(step, nodeId, started, failureCode(error));
      throw error;
    }
  }

  // ── Audit: queued, never waited for; the trail writes in batches ────────────────────────────────────────────────

  audit(kind: string, subject: string, payload: Readonly<Record<string, unknown>>): void {
    const walletId = this.#record.walletId;
    this.#parts.audit.append([{ kind, walletId, subject, payload }]).catch(() => undefined);
  }

  auditCertificate(certificate: ApprovalCertificate, signers: readonly string[]): void {
    const bytes = Buffer.from(toBinary(ApprovalCertificateSchema, certificate)).toString("hex");
    this.audit("certificate", this.#record.paymentId, { certificate: bytes, signers });
  }

  #auditTransition(event: TransactionEvent, { paymentId, state, proposalDigest }: PaymentRecord): void {
    const payload: Record<string, unknown> = { phase: state.phase, txid: state.txid };
    if (event.type === "proposed") {
      payload["feeSat"] = event.feeSat.toString();
      payload["proposalDigest"] = Buffer.from(proposalDigest).toString("hex");
      if (needsKeeping(this.#metadataJson)) payload["metadataJson"] = this.#metadataJson;
    }
    if (event.type === "signed") payload["transaction"] = Buffer.from(event.signedTransaction).toString("hex");
    if (event.type === "confirmed") payload["height"] = event.height;
    if (state.failure !== undefined) payload["failure"] = state.failure;
    this.audit(`payment-${event.type}`, paymentId, payload);
  }
}
