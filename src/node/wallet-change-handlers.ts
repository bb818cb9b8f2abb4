import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type {
  AbandonWalletChangeRequest,
  CheckWalletChangeRequest,
  DropWalletChangeRequest,
  GetWalletChangeRequest,
  PrepareWalletChangeRequest,
  SwitchWalletRequest,
  WalletChangeService,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { ShareChanges } from "./share-changes.js";

/** Runs a handler for a coordinator; what it throws goes to the peer as a fault. */
export type ServeCoordinator = <Request, Response>(
  handler: (request: Request, context: HandlerContext) => Promise<Response>,
) => (request: Request, context: HandlerContext) => Promise<Response>;

/** Messages in, calls of `ShareChanges` out; it decides nothing. */
export function walletChangeHandlers(
  changes: ShareChanges,
  serve: ServeCoordinator,
): ServiceImpl<typeof WalletChangeService> {
  return {
    getWalletChange: serve(async ({ walletId }: GetWalletChangeRequest) => {
      const { pending, switched, ...status } = changes.status(walletId);
      return { ...status, ...(pending ? { pending: defined(pending) } : {}), ...(switched ? { switched } : {}) };
    }),
    checkWalletChange: serve(async (request: CheckWalletChangeRequest) => {
      await changes.check(request);
      return {};
    }),
    prepareWalletChange: serve(async (request: PrepareWalletChangeRequest) => defined(await changes.prepare(request))),
    abandonWalletChange: serve(async ({ change, attempt }: AbandonWalletChangeRequest) => ({
      statement: await changes.abandon(change, attempt),
    })),
    dropWalletChange: serve(async ({ change, statement }: DropWalletChangeRequest) => {
      await changes.drop(change, statement);
      return {};
    }),
    switchWallet: serve(async ({ certificate }: SwitchWalletRequest) => ({
      keyDigest: await changes.switch(certificate),
    })),
  };
}

/** A message's field is missing, not undefined. */
function defined<Answer extends { readonly statement: unknown }>({ statement, ...rest }: Answer) {
  return statement === undefined ? rest : { ...rest, statement: statement as NonNullable<Answer["statement"]> };
}
