// Who looks at the pages, as the server knows it. The session is a cookie that no script can read; no token is kept here.
import { signal } from "@preact/signals";
import { api } from "./api.ts";
import { report } from "./health.ts";
import { Persistence } from "./persist.ts";
import type { Me, Role } from "./types.ts";

const ROLES: readonly Role[] = ["read", "run", "admin"];

/** Null until the server has said it, and while it wants a token. */
export const me = signal<Me | null>(null);

/** Whether the viewer may do what needs a role: what one may not do is not offered. */
export function may(needed: Role): boolean {
  const role = me.value?.role;
  return role !== undefined && ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

const persistence = new Persistence(startSession);

export function startSession(): void {
  api.me().then((found) => (me.value = found), (error) => persistence.failed(error)); // the banner or the login tells it
}

/** Begin a session; a Problem says what is wrong with the token. */
export async function login(token: string): Promise<void> {
  me.value = await api.login(token);
  report(null);
}

export async function logout(): Promise<void> {
  await api.logout();
  me.value = null;
  report({ what: "token", message: "You have logged out." });
}
