# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .backends.coreml import (
    CoreMLReport as CoreMLReport,
    export_coreml as export_coreml,
)
from .backends.executorch_pte import (
    ExecuTorchReport as ExecuTorchReport,
    export_executorch as export_executorch,
)
from .backends.litert_tflite import (
    LiteRTReport as LiteRTReport,
    export_litert as export_litert,
)
from .backends.ncnn_param import (
    NcnnReport as NcnnReport,
    export_ncnn as export_ncnn,
)
from .backends.openvino_ir import (
    OpenVINOReport as OpenVINOReport,
    export_openvino as export_openvino,
)
from .backends.ort_mobile import (
    MobileReport as MobileReport,
    export_mobile as export_mobile,
)
from .formats import (
    FormatsReport as FormatsReport,
    TimingOptions as TimingOptions,
    export_all as export_all,
)
from .onnx.export import (
    ExportReport as ExportReport,
    export_onnx as export_onnx,
)
from .publish import (
    push_to_hub as push_to_hub,
    save_pretrained as save_pretrained,
)
from .quantization.config import (
    QuantizationConfig as QuantizationConfig,
    Target as Target,
)
from .quantization.quantize import (
    QuantizationReport as QuantizationReport,
    quantize as quantize,
)
from .web import (
    WebReport as WebReport,
    write_web as write_web,
)

__all__: list[str]
