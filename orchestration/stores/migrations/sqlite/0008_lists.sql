-- Lists of runs go along an index whatever they are filtered by, and from any place on.
DROP INDEX run_created;
DROP INDEX run_name;
DROP INDEX run_parent;
CREATE INDEX run_created ON run (created, run_id);
CREATE INDEX run_state ON run (state, created, run_id);
-- With the columns that are filtered beside the flow, so that rows left out are not read.
CREATE INDEX run_flow ON run (flow_name, created, run_id, state, parent_run_id);
CREATE INDEX run_name ON run (name, created, run_id);
CREATE INDEX run_parent ON run (parent_run_id, created, run_id) WHERE parent_run_id IS NOT NULL;
