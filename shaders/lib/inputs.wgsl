{# Inputs that a page reads from storage buffers or, where TEXTURES says so, from textures that hold the same numbers: texel i of a run
   lies at texel(i). llvmpipe loads from a buffer lane by lane and number by number, each with a test of the bounds and a branch; a texture
   it reads for all lanes at once. #}
{% macro declare(textures, binding, name, kind) -%}
{% if textures -%}
@group(0) @binding({{ binding }}) var {{ name }}: texture_storage_2d<{{ {"f32": "r32float", "vec2<f32>": "rg32float", "vec4<f32>": "rgba32float", "u32": "r32uint"}[kind] }}, read>;
{%- else -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<{{ kind }}>;
{%- endif %}
{%- endmacro %}
{% macro load(textures, name, kind, i) -%}
{% if textures -%}
textureLoad({{ name }}, texel({{ i }})){{ {"f32": ".x", "vec2<f32>": ".xy", "vec4<f32>": "", "u32": ".x"}[kind] }}
{%- else -%}
{{ name }}[{{ i }}]
{%- endif %}
{%- endmacro %}
{% macro places(textures) -%}
{% if textures %}
fn texel(i: u32) -> vec2<u32> {
    return vec2(i & 1023u, i >> 10u);
}
{% endif %}
{%- endmacro %}
