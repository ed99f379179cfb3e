{# The matrices of Winograd's minimal filtering F(M x M, 3 x 3) (S. Winograd, 1980; for convolution: A. Lavin and S. Gray,
   arXiv:1509.09308), by M: with T = M + 2 and a tile d [T, T] of the input, filter g [3, 3] gives M x M outputs as
   y = At ((G g Gt) * (Bt d B)) A, "*" element by element. The points are 0, 1, -1, infinity, and 2, -2 for M = 4. #}
{% set BT2 = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]] %}
{% set G2 = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]] %}
{% set A2 = [[1, 0], [1, 1], [1, -1], [0, -1]] %}
{% set BT4 = [
  [4, 0, -5, 0, 1, 0],
  [0, -4, -4, 1, 1, 0],
  [0, 4, -4, -1, 1, 0],
  [0, -2, -1, 2, 1, 0],
  [0, 2, -1, -2, 1, 0],
  [0, 4, 0, -5, 0, 1],
] %}
{% set G4 = [[1/4, 0, 0], [-1/6, -1/6, -1/6], [-1/6, 1/6, -1/6], [1/24, 1/12, 1/6], [1/24, -1/12, 1/6], [0, 0, 1]] %}
{% set A4 = [[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]] %}
{% set BT = [0, 0, BT2, 0, BT4] %}
{% set G = [0, 0, G2, 0, G4] %}
{% set A = [0, 0, A2, 0, A4] %}
{# The sum of weights[i] times the variable `before` i `after`, without the terms that are zero. #}
{% macro sum(weights, before, after) -%}
{% for i in range(weights | length) if weights[i] != 0 -%}
{{ "-" if weights[i] < 0 else ("" if loop.first else "+") }}{% if weights[i] | abs != 1 %}{{ weights[i] | abs | float }}*{% endif %}{{ before }}{{ i }}{{ after }}
{%- endfor %}
{%- endmacro %}
{# The same along a column of the matrix. #}
{% macro sum_column(matrix, column, before, after) -%}
{% for i in range(matrix | length) if matrix[i][column] != 0 -%}
{{ "-" if matrix[i][column] < 0 else ("" if loop.first else "+") }}{% if matrix[i][column] | abs != 1 %}{{ matrix[i][column] | abs | float }}*{% endif %}{{ before }}{{ i }}{{ after }}
{%- endfor %}
{%- endmacro %}
