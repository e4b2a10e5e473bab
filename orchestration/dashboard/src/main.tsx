import { render } from "preact";
import { App } from "./app.tsx";
import { startHealth } from "./health.ts";
import { startKeys } from "./keys.tsx";
import { startRouter } from "./router.ts";
import { startSession } from "./session.ts";
import { startTheme } from "./theme.ts";
import { startClock } from "./time.ts";

startTheme();
startRouter();
startClock();
startKeys();
startHealth();
startSession();
const root = document.getElementById("app");
if (root) render(<App />, root);
