// Keyboard: single keys where nothing is typed into, two keys ("g r") to go somewhere.
import { signal } from "@preact/signals";
import { go } from "./router.ts";
import { may } from "./session.ts";
import { toggleTheme } from "./theme.ts";
import { Dialog } from "./ui/dialog.tsx";

export const helpOpen = signal(false);
const WAIT_MS = 1200;
const GOES: Record<string, string> = { r: "/runs", f: "/flows", w: "/workers", l: "/limits", a: "/audit" };

export function startKeys(): void {
  let leader = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const since = event.timeStamp - leader;
    const to = event.key === "a" && !may("admin") ? undefined : GOES[event.key];
    if (leader && since < WAIT_MS && to) go(to);
    else if (event.key === "?") helpOpen.value = true;
    else if (event.key === "t") toggleTheme();
    else if (event.key === "/") focusSearch(event);
    leader = event.key === "g" ? event.timeStamp : 0;
  });
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName));
}

function focusSearch(event: KeyboardEvent): void {
  const field = document.querySelector<HTMLInputElement>('input[type="search"]');
  if (!field) return;
  event.preventDefault();
  field.focus();
}

export function KeyboardHelp() {
  if (!helpOpen.value) return null;
  const close = () => (helpOpen.value = false);
  return (
    <Dialog title="Keyboard" close={close}>
      <dl class="keys">
        <Key keys={["g", "r"]} what="runs" />
        <Key keys={["g", "f"]} what="flows" />
        <Key keys={["g", "w"]} what="workers" />
        <Key keys={["g", "l"]} what="limits" />
        {may("admin") && <Key keys={["g", "a"]} what="audit" />}
        <Key keys={["/"]} what="search on this page" />
        <Key keys={["t"]} what="dark or light" />
        <Key keys={["?"]} what="this list" />
        <Key keys={["Tab", "Enter"]} what="through what can be pressed, and press it" />
        <Key keys={["←", "→", "↑", "↓"]} what="through the cells of a map, the bars of a timeline" />
        <Key keys={["Esc"]} what="close this" />
      </dl>
      <div class="actions">
        <button type="button" onClick={close}>Close</button>
      </div>
    </Dialog>
  );
}

function Key({ keys, what }: { keys: string[]; what: string }) {
  return (
    <>
      <dt>{keys.map((key) => <kbd key={key}>{key}</kbd>)}</dt>
      <dd>{what}</dd>
    </>
  );
}
