// How far a batch of runs is. Painted from props only: the server sends new ones whenever something changes.
import { CheckCircle2, Clock, Loader2, CircleAlert } from 'lucide-react'

function Icon() {
  if (!props.done) return <Loader2 className="bw-spin" size={18} aria-hidden="true" />
  const bad = props.segments.some((segment) => segment.key === 'failed')
  return bad ? <CircleAlert size={18} aria-hidden="true" /> : <CheckCircle2 size={18} aria-hidden="true" />
}

export default function RunsCard() {
  const share = props.total ? Math.round((100 * props.finished) / props.total) : 0
  return (
    <section className="bw-card" data-batch={props.batch_id} data-done={props.done} aria-label={`Runs of ${props.title}`}>
      <header className="bw-head">
        <Icon />
        <div className="bw-grow">
          <div className="bw-title">{props.headline}</div>
          <div className="bw-sub">{props.title} · cost so far {props.cost}</div>
        </div>
        <div className="bw-share">{share}%</div>
      </header>
      <div className="bw-bar" role="progressbar" aria-valuemin={0} aria-valuemax={100} aria-valuenow={share}
        aria-label={props.headline}>
        {props.segments.map((segment) => (
          <span key={segment.key} className={`bw-part bw-${segment.tone}`} title={`${segment.label}: ${segment.count}`}
            style={{ flexGrow: segment.count }} />
        ))}
      </div>
      <ul className="bw-counts">
        {props.segments.map((segment) => (
          <li key={segment.key} data-count={segment.key}>
            <span className={`bw-dot bw-${segment.tone}`} />
            <b>{segment.count.toLocaleString('en-US')}</b> {segment.label.toLowerCase()}
          </li>
        ))}
      </ul>
      {props.waits.length > 0 && (
        <ul className="bw-waits">
          {props.waits.map((text) => (
            <li key={text}><Clock size={14} aria-hidden="true" /> <span>{text}</span></li>
          ))}
        </ul>
      )}
      {props.runs.length > 0 && (
        <details className="bw-more" open={!props.done}>
          <summary>{props.done ? 'Some of them' : 'At work and in trouble first'}</summary>
          <ol className="bw-runs">
            {props.runs.map((run) => (
              <li key={run.run_id} title={run.run_id}>
                <span className={`bw-chip bw-${run.tone}`}>{run.word}</span>
                <span className="bw-name">{run.label}</span>
                <span className="bw-note">{run.note}</span>
              </li>
            ))}
          </ol>
        </details>
      )}
    </section>
  )
}
