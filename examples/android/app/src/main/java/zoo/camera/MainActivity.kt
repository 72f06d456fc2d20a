package zoo.camera

import android.Manifest.permission.CAMERA
import android.content.pm.PackageManager.PERMISSION_GRANTED
import android.graphics.Bitmap
import android.graphics.Matrix
import android.os.Bundle
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts.RequestPermission
import androidx.camera.core.ImageProxy
import androidx.camera.view.LifecycleCameraController
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import java.nio.*
import java.util.concurrent.Executors
import org.tensorflow.lite.Interpreter

/** Camera pictures and the five most probable classes of each, by `model.tflite` in the app's assets. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor()
    private lateinit var answer: TextView
    private lateinit var model: ModelFile
    private lateinit var interpreter: Interpreter

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        answer = findViewById(R.id.answer)
        val bytes = assets.open("model.tflite").use { it.readBytes() }
        val file = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes)
        file.rewind()
        model = ModelFile(file)
        interpreter = Interpreter(file, Interpreter.Options().setNumThreads(2))
        val ask = registerForActivityResult(RequestPermission()) { granted ->
            if (granted) watch() else answer.setText(R.string.refused)
        }
        if (ContextCompat.checkSelfPermission(this, CAMERA) == PERMISSION_GRANTED) watch() else ask.launch(CAMERA)
    }

    private fun watch() {
        val camera = LifecycleCameraController(this)
        camera.setImageAnalysisAnalyzer(worker) { picture -> picture.use(::classify) }
        camera.bindToLifecycle(this)
        findViewById<PreviewView>(R.id.preview).controller = camera
    }

    private fun classify(picture: ImageProxy) {
        val turn = Matrix().apply { postRotate(picture.imageInfo.rotationDegrees.toFloat()) }
        val bitmap = picture.toBitmap()
        val upright = Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
        val pixels = IntArray(upright.width * upright.height)
        upright.getPixels(pixels, 0, upright.width, 0, 0, upright.width, upright.height)
        val logits = Array(1) { FloatArray(interpreter.getOutputTensor(0).shape()[1]) }
        val began = System.nanoTime()
        interpreter.run(model.input(pixels, upright.width, upright.height), logits)
        val milliseconds = (System.nanoTime() - began) / 1_000_000
        val lines = model.best(logits[0]).map { (name, share) -> "%5.1f %%  %s".format(100 * share, name) }
        runOnUiThread { answer.text = (lines + "$milliseconds ms").joinToString("\n") }
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.submit { interpreter.close() }
        worker.shutdown()
    }
}
