// Accounts: open, read, list, change. Each is safe to retry.
import type { Account, AccountChange, AccountsPage, NewAccount } from '../shared/contract.ts';
import { checkNames, type Names } from './arguments.ts';
import { CALL_OPTIONS, type CallOptions, TRACED_CALL_OPTIONS, type TracedCallOptions } from './call-options.ts';
import { itemsOf, PAGE_OPTIONS, type PageOptions } from './pages.ts';
import { accountPath, get, patch, post, queryOf } from './paths.ts';
import type { Sender } from './sender.ts';

export interface AccountFilter {
  /** Accounts whose id begins with it. */
  prefix?: string | undefined;
}

export interface AccountMethods {
  /** Creates the account, or returns it if it already exists with the same asset and limits. */
  createAccount(account: NewAccount, options?: TracedCallOptions): Promise<Account>;
  /** The current state, including every change that was answered. */
  readAccount(id: string, options?: CallOptions): Promise<Account>;
  /** Changes limits or status. */
  changeAccount(id: string, change: AccountChange, options?: TracedCallOptions): Promise<Account>;
  /** A page of accounts in order of id, of all or of those whose id begins with a prefix. */
  listAccounts(page?: PageOptions & AccountFilter, options?: CallOptions): Promise<AccountsPage>;
  /** Accounts in order of id, page by page as they are read. The options hold for each page. */
  accounts(filter?: AccountFilter, options?: CallOptions): AsyncGenerator<Account, void, undefined>;
}

const NEW_ACCOUNT = {
  id: true,
  asset: true,
  overdraftLimit: true,
  maxBalance: true,
} as const satisfies Names<NewAccount>;
const CHANGE = { overdraftLimit: true, maxBalance: true, status: true } as const satisfies Names<AccountChange>;
const FILTER = { prefix: true } as const satisfies Names<AccountFilter>;
const PAGE = { ...PAGE_OPTIONS, ...FILTER };

export function accountMethods(sender: Sender): AccountMethods {
  async function listAccounts(page: PageOptions & AccountFilter = {}, options: CallOptions = {}) {
    checkNames('listAccounts', ['page', page, PAGE], ['options', options, CALL_OPTIONS]);
    return sender.repeatable<AccountsPage>(get(`/v1/accounts${queryOf(page)}`, 'accounts'), options);
  }

  return {
    async createAccount(account, options = {}) {
      checkNames('createAccount', ['account', account, NEW_ACCOUNT], ['options', options, TRACED_CALL_OPTIONS]);
      return sender.repeatable(post('/v1/accounts', account, 'id'), options);
    },
    async readAccount(id, options = {}) {
      checkNames('readAccount', ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(accountPath(id), 'id'), options);
    },
    async changeAccount(id, change, options = {}) {
      checkNames('changeAccount', ['change', change, CHANGE], ['options', options, TRACED_CALL_OPTIONS]);
      return sender.repeatable(patch(accountPath(id), change, 'id'), options);
    },
    listAccounts,
    accounts(filter = {}, options = {}) {
      checkNames('accounts', ['filter', filter, FILTER], ['options', options, CALL_OPTIONS]);
      return itemsOf(
        (page) => listAccounts({ ...filter, ...page }, options),
        ({ accounts }) => accounts,
      );
    },
  };
}
