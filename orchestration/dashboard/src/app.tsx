import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { health, trouble } from "./health.ts";
import { helpOpen, KeyboardHelp } from "./keys.tsx";
import { go, match, path } from "./router.ts";
import { logout, may, me } from "./session.ts";
import { theme, toggleTheme } from "./theme.ts";
import { Empty, Told } from "./ui/text.tsx";
import { AuditPage } from "./pages/audit.tsx";
import { FlowPage } from "./pages/flow.tsx";
import { FlowsPage } from "./pages/flows.tsx";
import { ItemPage } from "./pages/item.tsx";
import { LimitsPage } from "./pages/limits.tsx";
import { LoginPage } from "./pages/login.tsx";
import { RunsPage } from "./pages/runs.tsx";
import { WorkersPage } from "./pages/workers.tsx";
import { RunPage } from "./run/page.tsx";

const NAV = [["/runs", "Runs"], ["/flows", "Flows"], ["/workers", "Workers"], ["/limits", "Limits"]] as const;

type Parts = Record<string, string>;
const ROUTES: [string, (parts: Parts) => ComponentChildren][] = [
  ["/runs", () => <RunsPage />],
  ["/flows", () => <FlowsPage />],
  ["/flows/:name", ({ name = "" }) => <FlowPage key={name} name={name} />],
  ["/workers", () => <WorkersPage />],
  ["/limits", () => <LimitsPage />],
  ["/audit", () => <AuditPage />],
  [
    "/runs/:id/items/:node/:index",
    ({ id = "", node, index }) => (
      <ItemPage key={`${id} ${node} ${index}`} run={id} node={Number(node)} index={Number(index)} />
    ),
  ],
  ["/runs/:id", ({ id = "" }) => <RunPage key={id} id={id} tab="" />],
  ["/runs/:id/:tab", ({ id = "", tab = "" }) => <RunPage key={id} id={id} tab={tab} />],
  [
    "/runs/:id/:tab/:node",
    ({ id = "", tab = "", node }) => <RunPage key={id} id={id} tab={tab} node={node} />,
  ],
];

export function App() {
  return (
    <>
      <a class="skip" href="#main">Skip to the page</a>
      <TopBar />
      <Banner />
      <Main />
      <KeyboardHelp />
    </>
  );
}

function TopBar() {
  const dark = theme.value === "dark";
  return (
    <header class="topbar">
      <a class="brand" href="/runs" title={health.value?.version && `Millrace ${health.value.version}`}>
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <rect class="mark-ground" width="32" height="32" rx="7" />
          <path class="mark-lines" d="M16 5v22M5 16h22M8.200 8.200l15.600 15.600M23.800 8.200 8.200 23.800" />
        </svg>
        Millrace
      </a>
      <nav aria-label="Pages">
        {[...NAV, ...may("admin") ? [["/audit", "Audit"] as const] : []].map(([to, title]) => (
          <a key={to} href={to} aria-current={path.value.startsWith(to) ? "page" : undefined}>{title}</a>
        ))}
      </nav>
      <div class="tools">
        {me.value?.user && (
          <button type="button" class="quiet" onClick={logout} title={`${me.value.user}: ${me.value.role}`}>
            Log out
          </button>
        )}
        <button type="button" class="quiet" onClick={toggleTheme} title="Dark or light (t)">
          {dark ? "☀ Light" : "☾ Dark"}
        </button>
        <button
          type="button"
          class="quiet"
          onClick={() => (helpOpen.value = true)}
          aria-label="Keyboard help"
        >
          ?
        </button>
      </div>
    </header>
  );
}

function Banner() {
  const found = trouble.value;
  return (
    <div aria-live="assertive">
      {found && found.what !== "token" && (
        <div class={`banner ${found.what === "store" ? "bad" : ""}`} role="alert">
          <span>
            <Told text={found.message} />
          </span>
        </div>
      )}
    </div>
  );
}

function Main() {
  const main = useRef<HTMLElement>(null);
  const here = path.value;
  useEffect(() => {
    if (here === "/") go("/runs", { replace: true });
  }, [here]);
  const wanted = trouble.value?.what === "token" ? trouble.value.message : "";
  return (
    <main id="main" ref={main} tabIndex={-1}>
      {wanted ? <LoginPage why={wanted} /> : pageFor(here)}
    </main>
  );
}

function pageFor(here: string): ComponentChildren {
  for (const [pattern, page] of ROUTES) {
    const parts = match(pattern, here);
    if (parts) return page(parts);
  }
  return (
    <Empty title="There is no such page">
      <p>
        The address <code>{here}</code> leads nowhere. <a href="/runs">All runs</a>
      </p>
    </Empty>
  );
}
