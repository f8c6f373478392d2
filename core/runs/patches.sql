-- Patch markers (core/runs/patches.py).

-- name: patched
-- Which way the run goes at the marker $3 after step $4: as decided before, else anew; no row when the run is somebody
-- else's. It has gone past the marker when an execution before this one ($5: there was none) began anything after it.
insert into run_patches as p (tenant_id, run_id, name, after_step, taken)
select app.tenant(), $1, $3, $4,
       $5 or not (exists (select from run_steps s where s.run_id = $1 and s.step > $4 and not s.aside)
                  or exists (select from waits w where w.run_id = $1 and w.step > $4)
                  or exists (select from reviews v where v.run_id = $1 and v.step > $4))
from runs r
where r.tenant_id = app.tenant() and r.run_id = $1 and r.attempt = $2 and r.state = 'running'
for no key update
on conflict (run_id, name) do update set taken = p.taken
returning taken;
