import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import zoo.camera.ModelFile

/** MODEL.tflite WIDTH HEIGHT PIXELS: writes the names, the sizes and the network's input for raw ARGB pixels. */
fun main(arguments: Array<String>) {
    val model = ModelFile(ByteBuffer.wrap(File(arguments[0]).readBytes()))
    val raw = ByteBuffer.wrap(File(arguments[3]).readBytes()).order(ByteOrder.BIG_ENDIAN).asIntBuffer()
    val pixels = IntArray(raw.remaining()).also { raw.get(it) }
    val input = model.input(pixels, arguments[1].toInt(), arguments[2].toInt()).asFloatBuffer()
    println((model.classNames ?: listOf("none")).joinToString("\t"))
    println("${model.resize} ${model.resolution}")
    println(FloatArray(input.remaining()).also { input.get(it) }.joinToString(" "))
    println(model.best(floatArrayOf(0f, 2f, 1f), 2))
}
