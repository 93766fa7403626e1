"""From prediction and measurement to a verdict, findings, advice and a report."""
