{{- /* Name of a namespaced object: "sipwarden.name" (list . "operator"). Revisions may share a namespace. */ -}}
{{- define "sipwarden.name" -}}
{{- $root := index . 0 -}}
sipwarden-{{ index . 1 }}{{ if ne $root.Values.revision "default" }}-{{ $root.Values.revision }}{{ end }}
{{- end -}}

{{- /* Name of a cluster-scoped object, or one the operator makes: "sipwarden.revisionName" (list . "operator"). */ -}}
{{- define "sipwarden.revisionName" -}}
{{- $root := index . 0 -}}
sipwarden-{{ index . 1 }}-{{ $root.Values.revision }}
{{- end -}}

{{- define "sipwarden.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: sipwarden
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
sipwarden.dev/rev: {{ .Values.revision | quote }}
{{- end -}}

{{- /* What the operator's pods have in common, and nothing else has. */ -}}
{{- define "sipwarden.operatorLabels" -}}
app.kubernetes.io/name: sipwarden
app.kubernetes.io/component: operator
sipwarden.dev/rev: {{ .Values.revision | quote }}
{{- end -}}

{{- define "sipwarden.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* PodSecurity "restricted", with nothing to write to. */ -}}
{{- define "sipwarden.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "sipwarden.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Where helm test has its application: injection leaves the operator's own namespace alone. */}}
{{- define "sipwarden.testNamespace" -}}
{{- printf "%s-test" (.Release.Namespace | trunc 58 | trimSuffix "-") -}}
{{- end -}}

{{- define "sipwarden.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* What belongs to this revision, as alternatives by the end of a name: a requirement for labels each. */ -}}
{{- define "sipwarden.ofRevision" -}}
{{- if eq .Values.revision "default" -}}
"": {key: sipwarden.dev/rev, operator: DoesNotExist}
"-rev": {key: sipwarden.dev/rev, operator: In, values: [default]}
{{- else -}}
"": {key: sipwarden.dev/rev, operator: In, values: [{{ .Values.revision | quote }}]}
{{- end -}}
{{- end -}}

{{- /*
Which pods are opted in, as alternatives by name: selectors know neither "or" nor "absent or default". Namespaces of the
cluster itself are left alone, and ours, which must come up without itself.
*/ -}}
{{- define "sipwarden.optedIn" -}}
{{- range $suffix, $revision := include "sipwarden.ofRevision" . | fromYaml }}
namespace{{ $suffix }}:
  namespaceSelector:
    matchExpressions:
    - {key: sipwarden.dev/inject, operator: In, values: [enabled]}
    - {{ toJson $revision }}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease, {{ $.Release.Namespace | quote }}]}
  objectSelector:
    matchExpressions:
    - {key: sipwarden.dev/inject, operator: NotIn, values: [disabled]}
pod{{ $suffix }}:
  namespaceSelector:
    matchExpressions:
    - {key: sipwarden.dev/inject, operator: NotIn, values: [enabled]}
    - {{ toJson $revision }}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease, {{ $.Release.Namespace | quote }}]}
  objectSelector:
    matchExpressions:
    - {key: sipwarden.dev/inject, operator: In, values: [enabled]}
{{- end }}
{{- end -}}

{{- /* What the kubelet runs from files shows up as pods that admission cannot change. */ -}}
{{- define "sipwarden.notAMirror" -}}
- name: not-a-mirror-of-a-static-pod
  expression: "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))"
{{- end -}}
