{{/* A value as TOML. JSON's strings, numbers, booleans and arrays of them are TOML too; only tables are written
otherwise. (Helm's own toToml writes 131072 as 131072.0.) */}}
{{- define "farebox.toml" -}}
{{- if kindIs "map" . -}}
{ {{ $first := true }}{{ range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $key | toJson }} = {{ include "farebox.toml" $value }}{{ end }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "farebox.toml" $value }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "farebox.cards" -}}
{{- range .Values.models }}
[[model]]
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "farebox.toml" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end -}}

{{/* GPUs that one engine of a card takes. */}}
{{- define "farebox.cardGPUs" -}}
{{- $engine := default dict .engine -}}
{{- mul (int (default 1 $engine.tensor_parallel_size)) (int (default 1 $engine.pipeline_parallel_size)) (int (default 1 $engine.data_parallel_size)) -}}
{{- end -}}

{{/* The flags of `vllm serve --headless` that say the same as the leader's card (engine/args.py). */}}
{{- define "farebox.workerArgs" -}}
{{- $card := first .Values.models -}}
- serve
- {{ $card.source | quote }}
- --headless
- --nnodes={{ .Values.multiNode.nodes }}
- --node-rank=$(LWS_WORKER_INDEX)
- --master-addr=$(LWS_LEADER_ADDRESS)
- --master-port={{ .Values.multiNode.masterPort }}
- --distributed-executor-backend=mp
- --max-model-len={{ include "farebox.text" $card.context_length }}
- --dtype={{ get (dict "fp16" "float16" "bf16" "bfloat16") (default "auto" $card.precision) | default "auto" }}
{{- if and (eq (default "auto" $card.precision) "fp8") (not .Values.multiNode.prequantized) }}
- --quantization=fp8_per_tensor
{{- end }}
{{- range $name, $value := mergeOverwrite (deepCopy (default dict $card.engine)) (default dict .Values.settings.engine) }}
{{- $flag := replace "_" "-" $name }}
{{- if kindIs "bool" $value }}
- --{{ ternary "" "no-" $value }}{{ $flag }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%s" $flag (include "farebox.text" $value) | quote }}
{{- end }}
{{- end }}
{{- range .Values.multiNode.workerArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
