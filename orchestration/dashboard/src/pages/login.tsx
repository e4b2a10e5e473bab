import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { Problem } from "../api.ts";
import { login } from "../session.ts";

/** Shown wherever the server wants a token; the page that was asked for comes after it. */
export function LoginPage({ why }: { why: string }) {
  const busy = useMemo(() => signal(false), []);
  const failed = useMemo(() => signal(""), []);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  async function start(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const token = field.current?.value.trim() ?? "";
    if (!token) return;
    busy.value = true;
    failed.value = "";
    try {
      await login(token);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      failed.value = error.message;
    } finally {
      busy.value = false;
    }
  }
  return (
    <form class="card pad stack login" onSubmit={start}>
      <h1>Log in</h1>
      <p class="muted">{why}</p>
      <label>
        Token
        <input ref={field} type="password" name="token" autoComplete="current-password" required />
      </label>
      <button type="submit" class="primary" disabled={busy.value}>Log in</button>
      {failed.value && <p class="note bad" role="alert">{failed.value}</p>}
    </form>
  );
}
