// A case for a reviewer. The decision is the server's: the card only sends it and shows what came of it.
import { useState } from 'react'
import { Button } from '@/components/ui/button'
import { Textarea } from '@/components/ui/textarea'
import { CheckCircle2, Clock, Loader2 } from 'lucide-react'

export default function ReviewCard() {
  const [comment, setComment] = useState('')
  const [busy, setBusy] = useState('')
  const open = props.state === 'open'

  async function decide(verdict) {
    setBusy(verdict)
    try {
      await callAction({
        name: 'decide_review',
        payload: { review_id: props.review_id, verdict, comment },
      })
    } finally {
      setBusy('')
    }
  }

  return (
    <section className="bw-card" data-review={props.review_id} data-state={props.state} aria-label={props.title}>
      <header className="bw-head">
        {open ? <Clock size={18} aria-hidden="true" /> : <CheckCircle2 size={18} aria-hidden="true" />}
        <div className="bw-grow">
          <div className="bw-title">{props.title}</div>
          <div className="bw-sub">{open ? props.due : props.decided}</div>
        </div>
      </header>
      {props.question && <p className="bw-text">{props.question}</p>}
      {props.reasons.length > 0 && (
        <ul className="bw-reasons">{props.reasons.map((reason) => <li key={reason}>{reason}</li>)}</ul>
      )}
      {props.facts.length > 0 && (
        <details className="bw-more" open={open}>
          <summary>Facts of the case</summary>
          <dl className="bw-facts">
            {props.facts.map((fact) => (
              <div key={fact.label} className={fact.wide ? 'bw-wide' : undefined}><dt>{fact.label}</dt><dd>{fact.value}</dd></div>
            ))}
          </dl>
        </details>
      )}
      {!open && props.comment && <p className="bw-text">“{props.comment}”</p>}
      {props.notice && <p className="bw-notice" role="alert">{props.notice}</p>}
      {open && props.may_decide && (
        <div className="bw-decide">
          <Textarea value={comment} onChange={(event) => setComment(event.target.value)} maxLength={4000} rows={2}
            placeholder="Comment (kept with the decision)" aria-label="Comment" disabled={busy !== ''} />
          <div className="bw-buttons">
            {props.choices.map((choice, index) => (
              <Button key={choice.value} variant={index === 0 ? 'default' : 'outline'} disabled={busy !== ''}
                onClick={() => decide(choice.value)}>
                {busy === choice.value && <Loader2 className="bw-spin" size={16} aria-hidden="true" />}
                {choice.label}
              </Button>
            ))}
          </div>
        </div>
      )}
    </section>
  )
}
