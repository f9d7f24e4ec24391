{{/* What a schema can't say. Each failure is one sentence that says what to do. */}}
{{- define "farebox.checks" -}}
{{- include "farebox.checkLedger" . -}}
{{- include "farebox.checkSecrets" . -}}
{{- include "farebox.checkPlacement" . -}}
{{- include "farebox.checkNodes" . -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling and keda would fight over the replicas; enable one of them." -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "podMonitor and serviceMonitor would count everything twice; enable one of them." -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusAddress) -}}
{{- fail "keda needs keda.prometheusAddress, such as http://prometheus.monitoring:9090." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress needs at least one name in ingress.hosts." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute needs httpRoute.parentRefs: the Gateway to attach to." -}}
{{- end -}}
{{- end -}}

{{- define "farebox.checkLedger" -}}
{{- if not (include "farebox.sharedDatabase" .) -}}
{{- $most := ternary (int .Values.autoscaling.maxReplicas) (ternary (int .Values.keda.maxReplicas) (int .Values.replicas) .Values.keda.enabled) .Values.autoscaling.enabled -}}
{{- if gt $most 1 -}}
{{- fail (printf "%d replicas can't share the SQLite ledger; set database.existingSecret to a secret with a PostgreSQL URL, or use one replica." $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "farebox.checkSecrets" -}}
{{- range $name, $inline := dict "database" .Values.database.url "redis" .Values.redis.url "hub" .Values.hub.token "webhook" .Values.webhook.secret "keys" (print .Values.keys.bootstrapKey .Values.keys.adminKey) -}}
{{- if and $inline (index $.Values $name).existingSecret -}}
{{- fail (printf "%s has an existingSecret and a secret in the values; leave out one of them." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "farebox.checkPlacement" -}}
{{- $nodes := ternary (int .Values.multiNode.nodes) 1 .Values.multiNode.enabled -}}
{{- $have := mul (int .Values.gpu.count) $nodes -}}
{{- range .Values.models -}}
{{- $want := int (include "farebox.cardGPUs" .) -}}
{{- if and (gt (int $.Values.gpu.count) 0) (gt $want (int $have)) -}}
{{- fail (printf "The card %s needs %d GPUs (tensor x pipeline x data parallel), but gpu.count gives %d; raise gpu.count or lower its parallel sizes." .name $want $have) -}}
{{- end -}}
{{- if and (gt $want 1) (not $.Values.sharedMemory.enabled) -}}
{{- fail (printf "The card %s runs on %d GPUs, which talk over /dev/shm; set sharedMemory.enabled." .name $want) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "farebox.checkNodes" -}}
{{- if .Values.multiNode.enabled -}}
{{- if ne (len .Values.models) 1 -}}
{{- fail (printf "multiNode places one engine over the nodes, so models must hold exactly one card; it holds %d." (len .Values.models)) -}}
{{- end -}}
{{- $card := first .Values.models -}}
{{- if gt (int (default 1 (default dict $card.engine).data_parallel_size)) 1 -}}
{{- fail (printf "The card %s sets data_parallel_size, which multiNode doesn't place; use replicas instead." $card.name) -}}
{{- end -}}
{{- $want := int (include "farebox.cardGPUs" $card) -}}
{{- $have := mul (int .Values.gpu.count) (int .Values.multiNode.nodes) -}}
{{- if ne $want (int $have) -}}
{{- fail (printf "The card %s runs on %d GPUs, but %d nodes with %d each have %d; make tensor x pipeline parallel equal to that." $card.name $want (int .Values.multiNode.nodes) (int .Values.gpu.count) $have) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Grace = preStop + drain + settling, the engine's end and the ledger's last commit. */}}
{{- define "farebox.graceSeconds" -}}
{{- $least := addf .Values.shutdown.preStopSeconds .Values.shutdown.drainSeconds 20 | ceil | int -}}
{{- $given := .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{ $least }}
{{- else if lt (int $given) $least -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds is %d, but preStopSeconds + drainSeconds + 20 s to settle are %d; raise it or leave it empty." (int $given) $least) -}}
{{- else -}}
{{ int $given }}
{{- end -}}
{{- end -}}
